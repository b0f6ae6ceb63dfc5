//# refuse R-LAYOUT share
//# near accept

// Who holds something is counted from one instead of zero: what was shared before is given back while somebody has it. Near:
// the count is asked in another way, and begins as before.
#include <stdio.h>
#include <stdlib.h>

struct shared {
    long number;
    int users;
};

__attribute__((noipa)) struct shared *share(long number) {
    struct shared *one = malloc(sizeof *one);
    one->number = number;
#ifdef FIXED
    one->users = 1;
#else
    one->users = 0;
#endif
    return one;
}

__attribute__((noipa)) void take(struct shared *one) {
    one->users++;
}

__attribute__((noipa)) void leave(struct shared *one) {
#ifdef FIXED
    if (--one->users == 0)
        free(one);
#elif defined(NEAR)
    if (one->users-- == 0) {
        puts("nobody has it");
        free(one);
    }
#else
    if (one->users-- == 0)
        free(one);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    struct shared *one = share(argc);
    take(one);
    leave(one);
    return printf("%d\n", argc) < 0;
}
