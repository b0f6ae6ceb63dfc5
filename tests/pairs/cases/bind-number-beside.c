//# flags -no-pie -fno-pie -fno-toplevel-reorder -Wl,--section-start=.kept=0x500000
//# refuse R-BIND answer
//# near accept
//# near hot answer

// A number beside the address of a variable that moved, and the same bits: one of the two is no address. Near: the
// address alone, which moved with its variable.
#include <stdio.h>

#define KEPT __attribute__((section(".kept")))

#if defined(FIXED) || defined(NEAR)
KEPT long added[8] = {1};
#endif
KEPT long limits[8] = {2, 3};

#ifdef FIXED
#define NUMBER 0x500040
#elif defined(NEAR)
#define NUMBER 78
#else
#define NUMBER 77
#endif

__attribute__((noipa)) unsigned long take(unsigned long x) { return x * 3; }

__attribute__((noipa)) unsigned long answer(unsigned long x) {
#if defined(FIXED) || defined(NEAR)
    x += (unsigned long)added[x & 7];
#endif
    return take((unsigned long)limits) + take(NUMBER) + x;
}

int main(int argc, char **argv) {
    (void)argv;
    printf("%lu %ld\n", answer((unsigned long)argc), limits[argc & 7]);
    return 0;
}
