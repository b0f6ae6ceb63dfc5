//# note R-STACK main
//# accept
//# near accept

// main is entered once.
#include <stdio.h>

__attribute__((noinline)) int answer(int x) {
#ifdef NEAR
    return x * 1000 + 2;
#else
    return x * 1000 + 1;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
#ifdef FIXED
    if (argc > 9)
        return 1;
#endif
    return printf("%d\n", answer(argc)) < 0;
}
