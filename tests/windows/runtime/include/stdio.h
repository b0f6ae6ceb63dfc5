#pragma once
#include <stddef.h>
typedef struct file FILE;
extern FILE *stderr, *stdout;
int fprintf(FILE *, const char *, ...);
int printf(const char *, ...);
int fflush(FILE *);
int fputc(int, FILE *);
size_t fwrite(const void *, size_t, size_t, FILE *);
