//# refuse R-INIT limits
//# near accept

// A variable that becomes a constant with another value is not the running one.
// Near: it becomes a constant with the same value.
#include <stdio.h>

#ifdef FIXED
const int limits[4] = {1, 2, 3, 5};
#elif defined NEAR
const int limits[4] = {1, 2, 3, 4};
#else
int limits[4] = {1, 2, 3, 4};
#endif

#ifdef NEAR
__attribute__((noinline)) int limit(int i) { return limits[i & 1]; }
#else
__attribute__((noinline)) int limit(int i) { return limits[i & 3]; }
#endif

int main(int argc, char **argv) {
    (void)argv;
    printf("%d\n", limit(argc));
    return 0;
}
