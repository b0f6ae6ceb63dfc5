//# refuse R-LAYOUT item at 12
//# near note R-LAYOUT item
//# near hot scale
//# near accept

// A member at the end: what was allocated has no room for it. Near: no code that
// changes gets at it.
#include <stdio.h>
#include <stdlib.h>

#if defined(FIXED) || defined(NEAR)
struct item { int first, second, third; };
#else
struct item { int first, second; };
#endif

__attribute__((noinline)) int use(struct item *value, int x) {
#ifdef FIXED
    return x * 3 - (value->first + value->second);
#else
    return x - (value->first + value->second);
#endif
}

__attribute__((noinline)) int scale(int x) {
#ifdef NEAR
    return x * 5;
#else
    return x * 7;
#endif
}

struct item *live;

int main(int argc, char **argv) {
    (void)argv;
    live = (struct item *)calloc(1, 256);
    return printf("%d\n", use(live, scale(argc))) < 0;
}
