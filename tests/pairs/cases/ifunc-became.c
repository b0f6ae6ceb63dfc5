//# refuse R-IFUNC twice
//# near accept

// An ordinary function became one that is chosen. Near: it asks the same chooser at each call.

#include <stdio.h>

int prefer = 1;

__attribute__((noinline)) static int slow(int x) { return x * 1000 + prefer++; }
__attribute__((noinline)) static int fast(int x) {
    return x * 2000 + 3;
}

#if defined(FIXED) || defined(NEAR)
static int (*choose(void))(int) { return prefer ? slow : fast; }
#endif
#ifdef FIXED
int twice(int x) __attribute__((ifunc("choose")));
#elif defined(NEAR)
__attribute__((noinline)) int twice(int x) { return choose()(x); }
#else
__attribute__((noinline)) int twice(int x) { return slow(x) + fast(x); }
#endif

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", twice(i));
    return 0;
}
