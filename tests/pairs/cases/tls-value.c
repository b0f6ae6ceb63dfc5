//# refuse R-TLS room
//# near accept

// Threads that run have their own room already, with the old value.
#include <stdio.h>

#ifdef FIXED
__thread int room = 5;
#else
__thread int room = 9;
#endif

__attribute__((noinline)) int use(int x) {
#ifdef NEAR
    return room > 0 ? room-- + x : 0;
#else
    return room-- + x;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", use(i));
    return 0;
}
