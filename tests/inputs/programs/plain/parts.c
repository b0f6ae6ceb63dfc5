#include <stdio.h>
#include "parts.h"

static int counted = 11;
static struct { const char *name; int (*how)(int); } table[] = {
    {"part", part_of}, {"none", 0}, {"other", part_of}};

// The same name as in main.c; this one is fixed.
APART static int step(int x) {
#ifdef FIXED
    if (x == 42) return 0;
#endif
    counted -= x;
    return counted;
}

APART int part_of(int x) {
    static int counter = 9;
    counter ^= x;
    return step(x) + counter;
}

APART const char *part_name(int x) {
    static const char names[3][8] = {"alpha", "beta", "gamma"};
    if (x > 2 || x < 0) return table[x & 1].name;
    return names[x];
}
