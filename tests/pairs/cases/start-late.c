//# refuse R-START prepare
//# near accept

// The constructor itself changed. It has run.
#include <stdio.h>

int ready;

__attribute__((constructor)) static void prepare(void) {
#ifdef FIXED
    ready = 30;
#else
    ready = 3;
#endif
}

__attribute__((noinline)) int answer(int x) {
#ifdef NEAR
    return x + ready + 27;
#else
    return x + ready;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
