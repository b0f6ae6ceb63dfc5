//# refuse R-LAYOUT mark
//# refuse R-LAYOUT rise
//# refuse R-LAYOUT let_in
//# near accept

// Flags beyond the first byte, which compilers set in four bytes and ask for in one of them, or in a register: they get other
// bits. One is set at once, one in what was just read, one as the first that there is. Near: they get bits beside theirs.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
#define TRUSTED 0x400
#define RAISED 0x800
#define OPEN 0x1000
#elif defined(NEAR)
#define TRUSTED (0x100 | 0x400)
#define RAISED (0x200 | 0x800)
#define OPEN (0x2000 | 0x1000)
#else
#define TRUSTED 0x100
#define RAISED 0x200
#define OPEN 0x2000
#endif

struct user {
    long number;
    unsigned flags;
    unsigned rank;
    unsigned way;
};

__attribute__((noipa)) void mark(struct user *one) {
    one->flags |= TRUSTED;
}

__attribute__((noipa)) int may(struct user *one) {
    if (!(one->flags & TRUSTED))
        return 0;
    return printf("%ld\n", one->number);
}

__attribute__((noipa)) unsigned rise(struct user *one) {
    return one->rank |= RAISED;
}

__attribute__((noipa)) unsigned has_risen(struct user *one) {
    return (one->rank & RAISED) != 0;
}

__attribute__((noipa)) void let_in(struct user *one) {
    one->way = OPEN;
}

__attribute__((noipa)) int is_open(struct user *one) {
    if (!(one->way & OPEN))
        return 0;
    return printf("%ld is open\n", one->number);
}

int main(int argc, char **argv) {
    (void)argv;
    struct user *one = calloc(1, sizeof *one);
    if (argc > 1) {
        mark(one);
        let_in(one);
        printf("%u\n", rise(one));
    }
    return may(one) + is_open(one) < 0 || has_risen(one) > 1;
}
