//# refuse R-INIT limits
//# near accept

// Nobody writes it, so that the compiler keeps it among the constants; where the fix writes it, the running one cannot be written.
// Near: it is read in another way.
#include <stdio.h>

static int limits[3] = {10, 20, 30};

#ifdef NEAR
__attribute__((noinline)) int limit(int i) { return limits[i % 2]; }
#else
__attribute__((noinline)) int limit(int i) { return limits[i % 3]; }
#endif

__attribute__((noinline)) void allow(int i, int most) {
#ifdef FIXED
    limits[i % 3] = most;
#else
    printf("%d may not be %d\n", i, most);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    allow(argc, 7);
    printf("%d\n", limit(argc));
    return 0;
}
