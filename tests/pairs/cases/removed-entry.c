//# refuse R-CONST secured
//# refuse R-REMOVED check_old
//# near accept
//# near hot choose

// What a table of functions has is replaced and deleted; live data hold the address of the running program's table, which
// goes on calling it. Near: a table that only one function reads.
#include <stdio.h>
#include <stdlib.h>

struct operations {
    int (*test)(int);
    int most;
};
struct connection {
    const struct operations *how;
};

#ifdef FIXED
__attribute__((noipa)) static int check_new(int x) { return x > 7; }
#define check check_new
#else
__attribute__((noipa)) static int check_old(int x) { return x + 1; }
#define check check_old
#endif
#ifdef NEAR
__attribute__((noipa)) static int second(int x) { return x + 5; }
#else
__attribute__((noipa)) static int first(int x) { return x + 3; }
#define second first
#endif
__attribute__((noipa)) static int last(int x) { return x + 4; }

static const struct operations secured = {check, 20};
static int (*const choices[3])(int) = {second, last, second};

__attribute__((noipa)) void open_it(struct connection *c) { c->how = &secured; }
__attribute__((noipa)) int choose(int x, int y) {
    int (*chosen)(int) = choices[(x + y) % 3];
    return chosen(y) + chosen(x);
}

int main(int argc, char **argv) {
    (void)argv;
    struct connection *c = malloc(sizeof *c);
    open_it(c);
    return printf("%d %d\n", c->how->test(argc), choose(argc, argc)) < 0;
}
