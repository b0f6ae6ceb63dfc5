//# refuse R-CONST wide
//# near accept

// A variable points to a table of constants whose contents changed. Near: nothing but code reads the table.
#include <stdio.h>

#ifdef FIXED
static const int wide[4] = {1, 2, 3, 5};
#else
static const int wide[4] = {1, 2, 3, 4};
#endif
#ifdef NEAR
static const int narrow[4] = {9, 8, 7, 5};
#else
static const int narrow[4] = {9, 8, 7, 6};
#endif

const int *current = wide;

__attribute__((noinline)) int look(int x) { return current[x & 3] + narrow[x & 3]; }
__attribute__((noinline)) void turn(const int *to) { current = to; }

int main(int argc, char **argv) {
    if (argc > 2)
        turn((const int *)argv);
    return printf("%d\n", look(argc)) < 0;
}
