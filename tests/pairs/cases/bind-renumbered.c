//# compiler clang
//# refuse R-BIND note
//# near accept
//# near hot other

// Two blocks of one function have a `static char *kept`. Only the second one gets a number, so that the fix, which puts one in
// front, gives the name of the running one to another. Near: another function changed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) int note(int kind, const char *text) {
#ifdef FIXED
    if (kind == 2) {
        static char *kept;
        if (!kept)
            kept = malloc(4096);
        if (strlen(text) < 4096)
            strcpy(kept, text);
        return kept[0] * 2;
    }
#endif
    if (kind == 1) {
        static char *kept;
        if (!kept)
            kept = malloc(16);
        snprintf(kept, 16, "%s", text);
        return kept[0];
    }
    return -1;
}

__attribute__((noinline)) int twice(int kind) {
    if (kind == 1) {
        static int seen;
        return seen++;
    }
    static int seen;
    return seen--;
}

__attribute__((noinline)) int other(int x) {
#ifdef NEAR
    return twice(x) * 3;
#else
    return twice(x) * 2;
#endif
}

int main(int argc, char **argv) {
    printf("%d %d %d\n", note(argc, argv[0]), other(argc), other(-argc));
    return 0;
}
