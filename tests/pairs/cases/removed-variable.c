//# note R-REMOVED retries
//# accept
//# near accept

// A counter that the fix no longer needs: it stays in the process, and new code does not look at it.
#include <stdio.h>

#ifndef FIXED
int retries;
#endif

__attribute__((noinline)) int attempt(int x) {
#ifdef FIXED
    return x < 3;
#elif defined(NEAR)
    return x < 4 && retries++ < 3;
#else
    return x < 3 && retries++ < 3;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", attempt(i));
    return 0;
}
