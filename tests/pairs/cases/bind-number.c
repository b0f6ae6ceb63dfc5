//# flags -no-pie -fno-pie -fno-toplevel-reorder -Wl,--section-start=.kept=0x500000
//# refuse R-BIND answer
//# near accept
//# near hot answer

// A number that is the address of a variable in the fixed program, and not in the one that runs: the patch would hold
// the one or the other. Where the variable did not move both are the same.
#include <stdio.h>

#define KEPT __attribute__((section(".kept")))

#ifdef FIXED
KEPT long added[8] = {1};
#define NUMBER 0x500040
#elif defined(NEAR)
#define NUMBER 0x500000
#else
#define NUMBER 77
#endif
KEPT long limits[8] = {2, 3};

__attribute__((noipa)) unsigned long take(unsigned long x) { return x * 3; }

__attribute__((noipa)) unsigned long answer(unsigned long x) {
#ifdef FIXED
    x += (unsigned long)added[x & 7];
#endif
    return take(NUMBER) + x;
}

int main(int argc, char **argv) {
    (void)argv;
    printf("%lu %ld\n", answer((unsigned long)argc), limits[argc & 7]);
    return 0;
}
