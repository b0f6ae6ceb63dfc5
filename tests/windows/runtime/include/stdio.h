#pragma once
#include <stddef.h>
typedef struct file FILE;
extern FILE *stderr, *stdout;
int fprintf(FILE *, const char *, ...);
int printf(const char *, ...);
int fflush(FILE *);
