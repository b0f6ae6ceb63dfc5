//# refuse R-INIT tries.0
//# near accept

// The same for a variable of one function; near: the value is given by code.
#include <stdio.h>

__attribute__((noinline)) int next(int step) {
#ifdef FIXED
    static int tries = 3;
#else
    static int tries = 8;
#endif
#ifdef NEAR
    if (tries > 3)
        tries = 3;
#endif
    return tries += step;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", next(i));
    return 0;
}
