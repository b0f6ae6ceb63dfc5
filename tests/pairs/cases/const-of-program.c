//# flags -rdynamic
//# note R-CONST limits
//# accept
//# near accept

// A program exports a table only because it exports all; its own readers are replaced.
#include <stdio.h>

#ifdef FIXED
const int limits[3] = {10, 20, 30};
#else
const int limits[3] = {10, 20, 40};
#endif

__attribute__((noinline)) int limit(int level) {
#ifdef NEAR
    if (level < 0)
        return 0;
#endif
    return limits[level % 3] * 1000;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", limit(i));
    return 0;
}
