//# refuse R-TLS level
//# near accept

// Without its neighbour a thread-local has another distance from the thread pointer.
#include <stdio.h>

__thread int level;
#ifndef FIXED
__thread long history[8];
#endif

__attribute__((noinline)) int enter(int x) {
#ifdef FIXED
    return level++ + x;
#elif defined(NEAR)
    return level++ + (int)history[x & 3]++;
#else
    return level++ + (int)history[x & 7]++;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", enter(i));
    return 0;
}
