//# compiler clang
//# refuse R-LAYOUT limit
//# near accept

// clang tells the type of a variable where it is defined, and its address in a table of the unit.
#include <stdio.h>

#ifdef FIXED
float limit = 0;
#else
int limit = 0;
#endif

__attribute__((noinline)) int use(int x) {
#ifdef NEAR
    return limit > x + 1;
#else
    return limit > x;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    limit += argc;
    return printf("%d\n", use(argc)) < 0;
}
