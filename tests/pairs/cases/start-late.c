//# refuse R-START prepare
//# near hot renew
//# near accept

// The constructor itself changed. It has run. Near: another function changed in the same way.
#include <stdio.h>

int ready;

__attribute__((constructor)) static void prepare(void) {
#ifdef FIXED
    ready = 30;
#else
    ready = 3;
#endif
}

__attribute__((noinline)) void renew(void) {
#ifdef NEAR
    ready = 30;
#else
    ready = 3;
#endif
}

__attribute__((noinline)) int answer(int x) {
    renew();
    return x + ready;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
