//# accept
//# note R-IMPORT fstat
//# near accept

// fstat got its own symbol with version 2.33; whether the loaded libc has that is seen when the patch is applied.
// Near: a function of libc that the program imports already.
#include <stdio.h>
#include <sys/stat.h>

__attribute__((noinline)) int answer(int x) {
#ifdef FIXED
    struct stat found;
    return fstat(x, &found) == 0 ? (int)found.st_size : 0;
#elif defined(NEAR)
    return printf("%d\n", x) + x * 1000;
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
