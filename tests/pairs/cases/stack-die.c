//# note R-STACK serve
//# accept
//# near accept

// A loop is left only where one of the program's own functions ends it all, though the function returns on another way. Near:
// what the loop calls changed.
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

__attribute__((noinline)) void die(const char *what) {
    perror(what);
    exit(1);
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
            die("one");
        sleep(1);
    }
}

int main(int argc, char **argv) {
    (void)argv;
    return serve(argc);
}
