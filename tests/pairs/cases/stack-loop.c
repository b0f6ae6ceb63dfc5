//# note R-STACK serve
//# accept
//# near accept

// A thread's loop that never returns runs its old body for good; near: what it calls changed.
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) int one(int x) {
#ifdef NEAR
    return printf("%d!\n", x);
#else
    return printf("%d\n", x);
#endif
}

__attribute__((noinline)) void serve(int x) {
    for (;;) {
#ifdef FIXED
        x += one(x + 2);
#else
        x += one(x + 1);
#endif
        sleep(1);
    }
}

int main(int argc, char **argv) {
    (void)argv;
    serve(argc);
}
