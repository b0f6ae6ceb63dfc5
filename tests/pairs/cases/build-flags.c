//# flags -g
//# change-flags -fno-tree-vectorize
//# accept
//# note R-BUILD compiler and flags
//# near accept

// A flag that changes nothing here; where one does, the hot set is far too large, and the note says where to look.
#include <stdio.h>

__attribute__((noinline)) int answer(int x) {
#if defined(FIXED) || defined(NEAR)
    return x * 1000 + 2;
#else
    return x * 1000 + 1;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
