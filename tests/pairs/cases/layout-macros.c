//# refuse R-LAYOUT start
//# near accept

// A state that only a macro names gets another number, because a new one comes before it: what is connected keeps the old
// number. Near: the new state gets a number that nothing had, and
// a limit is another one, to which what is larger is cut.
#include <stdio.h>
#include <stdlib.h>

#define WAITS 1
#ifdef FIXED
#define ASKED 2
#define ANSWERS 3
#elif defined(NEAR)
#define ASKED 3
#define ANSWERS 2
#else
#define ANSWERS 2
#endif

#ifdef NEAR
#define MOST 9
#else
#define MOST 5
#endif

struct connection {
    long number;
    int state;
    int tries;
};

__attribute__((noipa)) void ask(struct connection *one) {
#if defined(FIXED) || defined(NEAR)
    one->state = one->tries > 3 ? WAITS : ASKED;
#else
    one->state = WAITS;
#endif
    one->tries++;
}

__attribute__((noipa)) void cut(struct connection *one) {
    if (one->tries > MOST) {
        puts("cut");
        one->tries = MOST;
    }
}

__attribute__((noipa)) void start(struct connection *one) {
    one->tries = 0;
    one->state = ANSWERS;
}

__attribute__((noipa)) int answers(struct connection *one) {
    if (one->state != ANSWERS)
        return 0;
    return printf("%ld\n", one->number);
}

int main(int argc, char **argv) {
    (void)argv;
    struct connection *one = calloc(1, sizeof *one);
    ask(one);
    cut(one);
    if (argc > 1)
        start(one);
    return answers(one) < 0;
}
