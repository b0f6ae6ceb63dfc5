//# refuse R-START measure
//# near accept

// A function that only a constructor calls; near: one that main calls.
#include <stdio.h>

int ready;

__attribute__((noinline)) static int measure(int x) {
#ifdef FIXED
    return x * 4 + ready;
#else
    return x * 3 + ready;
#endif
}

__attribute__((constructor)) static void prepare(void) { ready = measure(ready + 2); }

__attribute__((noinline)) static int again(int x) {
#ifdef NEAR
    return x * 6 + ready;
#else
    return x * 5 + ready;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d\n", again(argc)) < 0;
}
