//# refuse R-SIZE total
//# near accept

// A counter that became wider: four bytes behind it belong to its neighbour.
#include <stdio.h>

#ifdef FIXED
unsigned long total;
#else
unsigned total;
#endif
unsigned neighbour;

__attribute__((noinline)) int add(int x) {
#ifdef NEAR
    if (total > 4000000000u)
        return 0;
#endif
    total += x;
    return (int)(total + neighbour++);
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", add(i));
    return 0;
}
