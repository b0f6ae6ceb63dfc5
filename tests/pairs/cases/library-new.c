//# base-flags -Wl,--no-as-needed -lm -lresolv
//# change-flags -Wl,--no-as-needed -lm -lresolv -lgcc_s
//# near-flags -Wl,--no-as-needed -lresolv -lm
//# refuse R-LIBRARY libgcc_s.so.1
//# near accept

// The fixed program is linked with a library that the running one has not loaded. Near: the same ones in
// another order.
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
