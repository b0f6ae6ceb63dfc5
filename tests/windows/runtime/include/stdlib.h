/* What C code of libraries uses of the C library; it is Windows' own (ucrtbase.dll). */
#pragma once
#include <stddef.h>
void *malloc(size_t);
void *calloc(size_t, size_t);
void *realloc(void *, size_t);
void free(void *);
void abort(void);
void qsort(void *, size_t, size_t, int(__cdecl *)(const void *, const void *));
void qsort_s(void *, size_t, size_t, int(__cdecl *)(void *, const void *, const void *), void *);
char *getenv(const char *);
unsigned short _byteswap_ushort(unsigned short);
unsigned long _byteswap_ulong(unsigned long);
unsigned __int64 _byteswap_uint64(unsigned __int64);
unsigned _rotl(unsigned, int);
unsigned __int64 _rotl64(unsigned __int64, int);
