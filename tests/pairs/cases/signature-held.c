//# note R-SIGNATURE handler
//# accept
//# near accept

// Live data hold the address of a function that is called with its parameters in other registers. Near: as before.
#include <stdio.h>

#ifdef FIXED
#define HOW __attribute__((ms_abi))
#else
#define HOW
#endif

HOW __attribute__((noinline)) int handler(int x, int y) {
#ifdef NEAR
    return x * 3 + y;
#else
    return x * 7 - y;
#endif
}

HOW int (*held)(int, int) = handler;

__attribute__((noinline)) int call(int x) { return held(x, x + 1); }

int main(int argc, char **argv) {
    if (argc > 7)
        held = (HOW int (*)(int, int))argv;
    return call(argc) < 0;
}
