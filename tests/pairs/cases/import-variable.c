//# flags -fPIE -pie -mno-direct-extern-access
//# accept
//# note R-IMPORT optind
//# near note R-STATIC optind
//# near accept

// A variable of a library, reached through a slot that the running image does not have. Near: one of the
// program itself.
#include <stdio.h>

#ifdef NEAR
static volatile int optind = 1;
#else
extern int optind;
#endif

__attribute__((noinline)) int count(int x) {
#if defined(FIXED) || defined(NEAR)
    return x * 1000 + optind;
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
