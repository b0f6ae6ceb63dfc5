//# flags -no-pie
//# refuse R-IMPORT stderr
//# near accept

// In a program at fixed addresses the loader copies a library's variable into the program; the running one has no room.
#include <stdio.h>

__attribute__((noinline)) int complain(int x) {
#ifdef FIXED
    return fprintf(stderr, "%d\n", x);
#elif defined(NEAR)
    return fprintf(stdout, "%d!\n", x);
#else
    return fprintf(stdout, "%d\n", x);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    return fprintf(stdout, "%d\n", complain(argc)) < 0;
}
