//# accept
//# quiet R-STACK
//# near accept
//# near quiet R-STACK

// Loops that may be left: to return, or by a longjmp that a function of the program hides
// Near: another such loop changed.
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static jmp_buf again;

__attribute__((noinline)) void give_up(const char *why) {
    fprintf(stderr, "%s\n", why);
    longjmp(again, 1);
}

__attribute__((noinline)) void die(const char *why) {
    fprintf(stderr, "%s\n", why);
    abort();
}

__attribute__((noinline)) int serve(int x, int (*next)(int)) {
    if (x > 1000)
        return -1;
    for (;;) {
        x = next(x);
        if (x < 0)
            give_up("below zero");
#ifdef FIXED
        if (x == 77)
            x++;
#endif
    }
}

__attribute__((noinline)) int find(int x, int (*next)(int)) {
    for (;;) {
        x = next(x);
        if (x < 0)
            die("below zero");
#ifdef NEAR
        if (x > 101)
            return x;
#else
        if (x > 100)
            return x;
#endif
    }
}

__attribute__((noinline)) int one(int x) { return x > 5000 ? -1 : x + 1; }

int main(int argc, char **argv) {
    (void)argv;
    if (setjmp(again))
        return find(argc, one) < 0;
    return serve(argc, one);
}
