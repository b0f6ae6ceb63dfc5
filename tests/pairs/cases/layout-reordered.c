//# refuse R-LAYOUT item
//# near note R-LAYOUT other
//# near accept

// Members that changed places. Near: another type of the same members has them in another order.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
struct item { int second; int first; };
#else
struct item { int first; int second; };
#endif
#ifdef NEAR
struct other { long before[8]; int second; int first; };
#else
struct other { long before[8]; int first; int second; };
#endif
struct other beside[1];

__attribute__((noinline)) int use(struct item *value, int x) {
#ifdef NEAR
    return x + (value->first + value->second);
#elif defined(FIXED)
    return x * 3 - (value->first + value->second);
#else
    return x - (value->first + value->second);
#endif
}

struct item *live;

int main(int argc, char **argv) {
    (void)argv;
    live = (struct item *)calloc(1, 256);
    return printf("%d\n", use(live, argc)) < 0;
}
