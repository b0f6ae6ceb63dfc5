//# refuse R-LAYOUT reset
//# refuse R-LAYOUT begin
//# refuse R-LAYOUT close_at
//# refuse R-LAYOUT hold_on
//# near accept

// States that a compiler keeps and looks for in ways of its own: a byte stored with its neighbours, a member of a variable that others
// know by its address, an element of a table, a value that waits in a register for another call. Near: a new one at the end.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
#define DONE 4
#elif defined(NEAR)
#define LOST 4
#define DONE 3
#else
#define DONE 3
#endif

struct byte {
    long number;
    unsigned char state, kind, first, last;
};
struct one {
    long number;
    int state;
};
struct slot {
    long number;
    int room, state;
};

static struct one main_one;
static struct slot slots[8];

__attribute__((noipa)) void reset(struct byte *b) {
    b->state = DONE;
    b->kind = 1;
    b->first = 0;
    b->last = 7;
}

__attribute__((noipa)) int is_reset(const struct byte *b) {
    return b->state == DONE ? printf("%ld\n", b->number) : 0;
}

__attribute__((noipa)) void begin(void) {
    main_one.state = DONE;
}

__attribute__((noipa)) int has_begun(const struct one *one) {
    return one->state == DONE ? printf("%ld begun\n", one->number) : 0;
}

__attribute__((noipa)) void close_at(unsigned at) {
    slots[at % 8].state = DONE;
}

__attribute__((noipa)) int is_closed(const struct slot *slot) {
    return slot->state == DONE ? printf("%ld closed\n", slot->number) : 0;
}

struct waiting {
    long number, since, until;
    int state;
};

__attribute__((noipa)) void hold_on(struct waiting *one) {
    one->state = DONE;
}

__attribute__((noipa)) int waits(const struct waiting *one) {
    int state = one->state;
    printf("%ld\n", one->number);
    return state == DONE ? puts("waits") : 0;
}

int main(int argc, char **argv) {
    (void)argv;
    struct byte *b = calloc(1, sizeof *b);
    struct waiting *w = calloc(1, sizeof *w);
    if (argc > 1) {
        reset(b);
        begin();
        close_at(argc);
        hold_on(w);
    }
#ifdef NEAR
    b->state = argc > 2 ? LOST : b->state;
#endif
    return is_reset(b) + has_begun(&main_one) + is_closed(slots) + waits(w) < 0;
}
