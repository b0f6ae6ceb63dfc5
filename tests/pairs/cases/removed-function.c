//# note R-REMOVED doubled
//# accept
//# near accept

// A function that is called directly goes together with its last caller.
#include <stdio.h>

#ifndef FIXED
__attribute__((noinline, noclone)) int doubled(int x) { return x * 2 + (x & 5); }
#endif

__attribute__((noinline)) int answer(int x) {
#ifdef FIXED
    return x;
#elif defined(NEAR)
    return doubled(x + 1);
#else
    return doubled(x);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
