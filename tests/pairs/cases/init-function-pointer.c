//# refuse R-INIT handler
//# refuse R-INIT other
//# near accept

// A hook that starts with another function; near: the function itself changed.
#include <stdio.h>

__attribute__((noinline)) static int plain(int x) {
#ifdef NEAR
    return x + 2;
#else
    return x + 1;
#endif
}
__attribute__((noinline)) static int careful(int x) { return x > 0 ? x : 0; }

#ifdef FIXED
int (*handler)(int) = careful;
int (*other)(int) = plain;
#else
int (*handler)(int) = plain;
int (*other)(int) = careful;
#endif

int main(int argc, char **argv) {
    if (argc > 3)
        handler = other = (int (*)(int))argv;
    printf("%d %d\n", handler(argc), other(argc));
    return 0;
}
