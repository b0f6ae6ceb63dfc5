//# flags -rdynamic
//# note R-EXPORT helper
//# accept
//# near accept

// A program that loses an export: libraries that looked for it keep the old one.
#include <stdio.h>

#ifndef FIXED
int helper(int x) { return x * 3; }
#endif

__attribute__((noinline)) int answer(int x) {
#if defined(FIXED) || defined(NEAR)
    if (x > 5)
        return 0;
#endif
    return x + 1;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
