//# note R-STACK serve
//# accept
//# near accept

// A thread's loop that only abort() leaves runs its old body for good, though the function returns on another way. Near: what
// it calls changed.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline)) int one(int x) {
#ifdef NEAR
    return printf("%d!\n", x);
#else
    return printf("%d\n", x);
#endif
}

__attribute__((noinline)) int serve(int x) {
    if (x > 3)
        return -1;
    for (;;) {
#ifdef FIXED
        x = one(x + 2);
#else
        x = one(x + 1);
#endif
        if (x < 0)
            abort();
        sleep(1);
    }
}

int main(int argc, char **argv) {
    (void)argv;
    return serve(argc);
}
