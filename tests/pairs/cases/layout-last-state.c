//# refuse R-LAYOUT state
//# near accept

// The last state of an enumeration gets another number, since a new one comes before it: it is a state as the others, and live
// data hold its old number. Near: the last one counts the states, and nothing has its value.
#include <stdio.h>
#include <stdlib.h>

enum state {
    idle,
    busy,
#ifdef FIXED
    draining,
#endif
    closed,
#ifdef NEAR
    draining,
#endif
#ifndef FIXED
    state_count,
#endif
};

struct connection {
    long number;
    int state;
};

__attribute__((noipa)) void leave(struct connection *one) {
#if defined(FIXED) || defined(NEAR)
    one->state = one->number > 3 ? draining : closed;
#else
    one->state = closed;
#endif
}

__attribute__((noipa)) int is_open(const struct connection *one) {
    return one->state < closed ? printf("%ld\n", one->number) : 0;
}

int main(int argc, char **argv) {
    (void)argv;
    struct connection *one = calloc(1, sizeof *one);
    if (argc > 1)
        leave(one);
    return is_open(one) < 0;
}
