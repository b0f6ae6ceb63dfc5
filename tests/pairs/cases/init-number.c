//# refuse R-INIT limit at 8
//# near accept

// The fix lowers a limit. The running variable keeps the old one, whatever new code expects.
#include <stdio.h>

#ifdef FIXED
int limit = 50;
#else
int limit = 100;
#endif

__attribute__((noinline)) int check(int size) {
#if defined(FIXED) || defined(NEAR)
    if (size < 0)
        return 0;
#endif
    return size < limit++;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", check(i));
    return 0;
}
