//# refuse R-LAYOUT state
//# near accept

// Live data hold numbers of an enumeration, which mean something else now. Near: a new one at the end.
#include <stdio.h>

#ifdef FIXED
enum state { idle, waiting, busy, done };
#elif defined(NEAR)
enum state { idle, busy, done, lost };
#else
enum state { idle, busy, done };
#endif

enum state live;

__attribute__((noinline)) int step(int x) {
    if (live == busy)
#ifdef NEAR
        return printf("busy with %d\n", x);
#else
        return printf("busy %d\n", x);
#endif
    live = x > 1 ? busy : done;
    return 0;
}

int main(int argc, char **argv) {
    (void)argv;
    return step(argc) + step(argc) < 0;
}
