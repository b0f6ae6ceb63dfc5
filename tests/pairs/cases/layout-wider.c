//# refuse R-LAYOUT item
//# near accept

// A member of another size. Near: one that nobody may write any more.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
struct item { int first; long second; };
#elif defined(NEAR)
struct item { int first; const short second; };
#else
struct item { int first; short second; };
#endif

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
