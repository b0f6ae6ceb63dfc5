//# note R-STACK spawn
//# accept
//# near accept

// The parent returns and the child serves for ever, with old code. Near: what it calls changed.
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) int one(int x) {
#ifdef NEAR
    return printf("%d!\n", x);
#else
    return printf("%d\n", x);
#endif
}

__attribute__((noinline)) int spawn(int x) {
    int pid = fork();
    if (pid != 0)
        return pid;
    for (;;) {
#ifdef FIXED
        x += one(x + 2);
#else
        x += one(x + 1);
#endif
        if (x > 1000)
            _exit(0);
        sleep(1);
    }
}

int main(int argc, char **argv) {
    (void)argv;
    return spawn(argc) < 0;
}
