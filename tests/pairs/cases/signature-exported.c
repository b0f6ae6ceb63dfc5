//# flags -shared -fPIC
//# refuse R-SIGNATURE check at 21
//# near accept

// Programs call an exported function as its old header says. Near: one of the file only, whose callers all change.
#include <stdio.h>

__attribute__((noinline)) static int weigh(int x
#ifdef NEAR
    , int more
#endif
) {
#ifdef NEAR
    return printf("%d %d\n", x, more);
#else
    return printf("%d\n", x);
#endif
}

#ifdef FIXED
int check(int x, int strict) { return strict ? weigh(x) : 0; }
#else
int check(int x) {
#ifdef NEAR
    return weigh(x, x + 1) + x * 1000;
#else
    return weigh(x) + x * 500;
#endif
}
#endif
