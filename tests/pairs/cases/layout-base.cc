//# refuse R-LAYOUT Root at 10
//# refuse R-LAYOUT item
//# near accept

// A base class that grew: all that derive from it moved. Near: it has a method and a static member more.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
struct Root { int zero, more; };
struct item : Root { int first, second; };
#elif defined(NEAR)
struct Root { int zero; static int count; int twice() const { return zero * 2; } };
struct item : Root { int first, second; };
#else
struct Root { int zero; };
struct item : Root { int first, second; };
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
