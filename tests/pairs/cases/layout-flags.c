//# refuse R-LAYOUT mark
//# near accept

// A flag that only a macro names gets another bit: what was marked is not known as marked. Near: another flag is set beside it, and asked for.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
#define TRUSTED 0x20
#elif defined(NEAR)
#define TRUSTED (0x10 | 0x40)
#else
#define TRUSTED 0x10
#endif

struct user {
    long number;
    unsigned flags;
};

__attribute__((noipa)) void mark(struct user *one) {
    one->flags |= TRUSTED;
}

__attribute__((noipa)) int may(struct user *one) {
    if (!(one->flags & TRUSTED))
        return 0;
    return printf("%ld\n", one->number);
}

int main(int argc, char **argv) {
    (void)argv;
    struct user *one = calloc(1, sizeof *one);
    if (argc > 1)
        mark(one);
    return may(one) < 0;
}
