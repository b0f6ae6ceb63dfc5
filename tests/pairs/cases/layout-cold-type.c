//# refuse R-LAYOUT used
//# near accept

// Near: a type grew that no replaced function looks into.
#include <stdio.h>
#include <stdlib.h>

struct used {
    int first, second;
#ifdef FIXED
    int third;
#endif
};
struct unused {
    int first, second;
};

__attribute__((noinline)) int use(struct used *value, int x) {
#ifdef NEAR
    return printf("%d!\n", value->first + x);
#elif defined(FIXED)
    return printf("%d\n", value->second + value->third + x);
#else
    return printf("%d\n", value->second + x);
#endif
}
#ifdef NEAR
struct other {
    int first, second, third;
};
#else
struct other {
    int first, second;
};
#endif

__attribute__((noinline)) int look(struct other *value, struct unused *more) { return value->first + more->first; }

int main(int argc, char **argv) {
    (void)argv;
    struct used *used = calloc(1, 64);
    struct other *other = calloc(1, 64);
    struct unused *unused = calloc(1, 64);
    return use(used, argc) + look(other, unused) < 0;
}
