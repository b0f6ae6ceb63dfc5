//# refuse R-LAYOUT state
//# near accept

// The last state of an enumeration gets another number, since a new one comes before it: it is a state as the others, and live
// data hold its old number. Near: the new one is the last, and what counts another enumeration counts one more.
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
};

enum kind {
    plain,
    packed,
#ifdef NEAR
    sealed,
#endif
    kind_count
};

struct connection {
    long number;
    int state, kind;
};

__attribute__((noipa)) void leave(struct connection *one) {
#if defined(FIXED) || defined(NEAR)
    one->state = one->number > 3 ? draining : closed;
#else
    one->state = closed;
#endif
}

__attribute__((noipa)) int is_open(const struct connection *one) {
    return one->kind < kind_count && one->state < closed ? printf("%ld\n", one->number) : 0;
}

int main(int argc, char **argv) {
    (void)argv;
    struct connection *one = calloc(1, sizeof *one);
    if (argc > 1)
        leave(one);
    return is_open(one) < 0;
}
