//# compiler clang
//# flags -fno-plt
//# refuse R-ALLOC make
//# near accept

// Without stubs the address of the allocator is read once, and called out of a register.

#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
#define SIZE 96
#else
#define SIZE 48
#endif

__attribute__((noinline)) char **make(char **all, int x) {
    for (int i = 0; i < x; i++) {
        all[i] = malloc(SIZE);
#ifdef NEAR
        all[i][1] = (char)x;
#endif
        all[i][0] = (char)x;
    }
    return all;
}

int main(int argc, char **argv) { return printf("%d\n", make(argv, argc)[0][0]) < 0; }
