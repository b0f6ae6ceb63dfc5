//#changes also_with_helper|choose|step|tell|with_helper
//
// C: statics of one name in two files, jump tables, thread-locals, texts, tables of
// functions, numbered statics, cold paths.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "parts.h"

static _Thread_local int depth = 3;
static _Thread_local char scratch[48];
static int counted;

// The same name as in parts.c; this one stays as it is.
APART static int step(int x) {
    counted += x;
    return counted ^ x;
}

APART int number_of_calls(void) {
    static int counter = 5;
    return counter++;
}

APART int number_of_others(void) {
    static int counter = 7;
    counter += 2;
    return counter;
}

// A jump table with ends that differ too much for a table of values.
APART int choose(int what, int x) {
    switch (what) {
    case 0: return step(x);
    case 1: return x * 7;
    case 2: return number_of_calls();
    case 3: return printf("three %d\n", x);
    case 4: return x << 3;
    case 5: return puts("five");
#ifdef FIXED
    case 6: return x < 0 ? -1 : part_of(x);
#else
    case 6: return part_of(x);
#endif
    case 7: return number_of_others() - x;
    case 8: return x / 3;
    default: return -1;
    }
}

// Unchanged, with a jump table of its own.
APART int decode(unsigned char c, int x) {
    switch (c) {
    case 'a': return x + 1;
    case 'b': return printf("b %d\n", x);
    case 'c': return x ^ 0x55;
    case 'd': return part_of(x + 2);
    case 'e': return abs(x) % 13;
    case 'f': return puts("f");
    case 'g': return x * x;
    case 'h': return x - 900;
    default: return 0;
    }
}

// A table of values: no jumps, the switch reads an array that has no symbol.
APART const char *name_of(int what) {
    switch (what) {
    case 0: return "zero";
    case 1: return "one of them";
    case 2: return "two of them";
    case 3: return "three";
    case 4: return "four or so";
    case 5: return "five";
    case 6: return "six";
    default: return "many";
    }
}

APART int tell(int x) {
#ifdef FIXED
    return printf("%s: %d of %d\n", name_of(x & 7), x, 10);
#else
    return printf("%s: %d or %d\n", name_of(x & 7), x, 10);
#endif
}

APART int remember(int x) {
    depth += x;
    snprintf(scratch, sizeof scratch, "%d deep", depth);
    return (int)strlen(scratch);
}

APART int with_helper(int x) { return checked(x) + 1; }
APART int also_with_helper(int x) { return checked(x) * 5; }

APART int sum(int count, ...) {
    va_list all;
    va_start(all, count);
    double total = 0;
    while (count-- > 0) total += va_arg(all, double) * 1.5;
    va_end(all);
    return (int)total;
}

// Unlikely and long: compilers move the end of it away.
APART int careful(int x, const char *why) {
    if (__builtin_expect(x < 0, 0)) {
        fprintf(stderr, "%s: %d is too small\n", why, x);
        fflush(stderr);
        abort();
    }
    return x + 1;
}

APART float single(float x) { return x * 2.5f - 0.125f; }

// Nothing refers to it: --gc-sections may drop it.
APART int unused(int x) { return x * 31; }

typedef int (*action)(int);
static const action actions[] = {tell, remember, with_helper, also_with_helper, part_of};
static action settable[] = {remember, part_of};

int main(int count, char **words) {
    char *help[] = {"first", "second", "third of all", words[0]};
    int got = choose(count, atoi(words[0])) + decode((unsigned char)words[0][0], count);
    for (unsigned i = 0; i < sizeof actions / sizeof *actions; i++) got += actions[i](count);
    got += settable[count & 1](got) + sum(2, 1.0, 2.0) + careful(count, help[count & 3]);
    got += (int)single((float)count) + part_name(count)[0];
    return got & 1;
}
