//# refuse R-TLS depth
//# refuse R-TLS level
//# near accept

// A new thread-local has no room in the blocks that the threads have. Near: the old one is used in another way.
#include <stdio.h>

__thread int level;
#ifdef FIXED
__thread int depth;
#endif

__attribute__((noinline)) int enter(int x) {
#ifdef FIXED
    return level++ + depth++ + x;
#elif defined(NEAR)
    return level < 9 ? level++ + x : 0;
#else
    return level++ + x;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", enter(i));
    return 0;
}
