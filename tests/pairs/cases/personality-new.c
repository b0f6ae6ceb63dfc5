//# flags -fexceptions
//# refuse R-PERSONALITY answer
//# refuse R-LIBRARY libgcc_s.so.1
//# near accept

// The first clean-up of a C program brings the routine for it, which the running image does not have.
#include <stdio.h>

extern int work(int *);
__attribute__((noinline)) static void close_it(int *x) { printf("closed %d\n", *x); }

__attribute__((noinline)) int answer(int x) {
#ifdef FIXED
    __attribute__((cleanup(close_it))) int held = x;
    printf("%d\n", held);
    return x;
#elif defined(NEAR)
    int held = x;
    printf("%d\n", held);
    close_it(&held);
    return x;
#else
    int held = x + 1;
    close_it(&held);
    return x;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
