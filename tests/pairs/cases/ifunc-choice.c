//# refuse R-IFUNC twice
//# near accept

// The resolver chooses another function; it has been asked already. Near: a function that may be chosen changed.

#include <stdio.h>

int prefer = 1;

__attribute__((noinline)) static int slow(int x) { return x * 1000 + prefer++; }
__attribute__((noinline)) static int fast(int x) {
#ifdef NEAR
    return x * 2000 + 77;
#else
    return x * 2000 + 3;
#endif
}

static int (*choose(void))(int) {
#ifdef FIXED
    return prefer ? fast : slow;
#else
    return prefer ? slow : fast;
#endif
}
int twice(int x) __attribute__((ifunc("choose")));

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", twice(i));
    return 0;
}
