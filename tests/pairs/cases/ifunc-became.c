//# refuse R-IFUNC twice
//# near accept

// An ordinary function became one that is chosen.

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

#ifdef FIXED
static int (*choose(void))(int) { return prefer ? slow : fast; }
int twice(int x) __attribute__((ifunc("choose")));
#else
__attribute__((noinline)) int twice(int x) { return slow(x) + fast(x); }
#endif

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", twice(i));
    return 0;
}
