//# flags -fPIE -pie -mno-direct-extern-access
//# accept
//# note R-IMPORT optind
//# near accept

// A variable of a library, reached through a slot that the running image does not have.
#include <stdio.h>

extern int optind;

__attribute__((noinline)) int count(int x) {
#ifdef FIXED
    return x * 1000 + optind;
#elif defined(NEAR)
    return x * 1000 + 2;
#else
    return x * 1000 + 1;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", count(i));
    return 0;
}
