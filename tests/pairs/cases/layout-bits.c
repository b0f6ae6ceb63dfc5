//# refuse R-LAYOUT item
//# near note R-LAYOUT item
//# near hot scale
//# near accept

// A bit-field that became wider. Near: one behind it is new, and no code that changes gets at it.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
struct item { unsigned first : 4; unsigned second : 5; };
#elif defined(NEAR)
struct item { unsigned first : 3; unsigned second : 5; unsigned third : 8; };
#else
struct item { unsigned first : 3; unsigned second : 5; };
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
