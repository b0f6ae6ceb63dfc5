//# base-flags -Wl,--no-as-needed -lm -lresolv
//# change-flags -Wl,--no-as-needed -lm
//# near-flags -Wl,--no-as-needed -lm -lresolv
//# accept
//# near accept

// A library that the fixed program does not need stays loaded in the running one, and does no harm there.
#include <stdio.h>

__attribute__((noinline)) int answer(int x) {
#if defined(FIXED) || defined(NEAR)
    if (x > 5)
        return 0;
#endif
    return x * 1000 + 1;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
