//# refuse R-IFUNC modern
//# near accept

// A function that only the resolver asks.

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

int found;
__attribute__((noinline)) static int modern(void) {
#ifdef FIXED
    return found > 9;
#else
    return found < 9;
#endif
}
static int (*choose(void))(int) { return modern() ? slow : fast; }
int twice(int x) __attribute__((ifunc("choose")));

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", twice(i));
    return 0;
}
