//# flags -g1
//# refuse R-LAYOUT use
//# near accept

// The debug data have functions and lines, and no types. Near: the same instructions call another function.
#include <stdio.h>
#include <stdlib.h>

struct session {
#ifdef FIXED
    int seen;
#endif
    int limit;
};

__attribute__((noinline)) int twice(int x) { return 2 * x; }
__attribute__((noinline)) int thrice(int x) { return 3 * x; }

__attribute__((noinline)) int use(struct session *at, int x) {
#ifdef NEAR
    return thrice(at->limit + x) + 1;
#else
    return twice(at->limit + x) + 1;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    struct session *at = calloc(1, 64);
    return printf("%d\n", use(at, argc)) < 0;
}
