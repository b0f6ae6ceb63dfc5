//# change-flags -Wl,--no-as-needed -lm
//# refuse R-LIBRARY libm.so.6
//# near accept

// The fixed program is linked with a library that the running one has not loaded.
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
