//# note R-STATIC attempts.0
//# accept
//# near accept

// The fix counts in a new variable, which lives in the patch.
#include <stdio.h>

__attribute__((noinline)) int answer(int x) {
#ifdef FIXED
    static int attempts;
    return attempts++ < 3 ? x : 0;
#elif defined(NEAR)
    return x < 3000 ? x * 1000 : 0;
#else
    return x * 1000;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
