//# accept
//# unhooked check
//# near accept
//# near hooked check
// gcc knows that the base's `check` leaves both variables alone: the old `serve` keeps one in a register and takes the other
// for a constant.
#include <stdio.h>
static int used, room = 100;
static volatile int seen;
__attribute__((noinline)) static int check(int n) {
    seen = n;
#ifdef FIXED
    if (n == 3) {
        used = 0;
        room = 10;
    }
#elif defined NEAR
    return n & 3;
#endif
    return n & 1;
}
__attribute__((noinline)) static void serve(volatile int *go) {
    for (int i = 0; *go; i++) {
        used += check(i & 7);
        for (volatile int k = 0; k < 1000; k++)
            ;
#ifdef NEAR
        if (used > 3 * room)
#else
        if (used > room)
#endif
            used = 0;
    }
}
int main(int count, char **words) {
    (void)words;
    volatile int go = count;
    serve(&go);
    printf("%d %d\n", used, room);
    return 0;
}
