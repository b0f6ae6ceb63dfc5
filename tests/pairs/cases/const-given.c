//# refuse R-CONST secured
//# near accept
//# near hot is_large

// A table of functions is handed to each connection, and asked for by its address: connections that are open hold the
// running program's, and new code would compare with the patch's. Near: a table that is only walked along changed.
#include <stdio.h>
#include <stdlib.h>

struct operations {
    int (*read)(int);
    int most;
};
struct connection {
    const struct operations *how;
};

__attribute__((noipa)) static int read_secured(int x) { return x + 1; }
__attribute__((noipa)) static int read_plain(int x) { return x + 2; }

#ifdef FIXED
static const struct operations secured = {read_secured, 16};
#else
static const struct operations secured = {read_secured, 20};
#endif
static const struct operations plain = {read_plain, 30};

struct step {
    int (*run)(int);
    int times;
};
#ifdef NEAR
static const struct step steps[3] = {{read_plain, 2}, {read_secured, 4}, {read_plain, 5}};
#else
static const struct step steps[3] = {{read_plain, 2}, {read_secured, 3}, {read_plain, 5}};
#endif

__attribute__((noipa)) void open_it(struct connection *c, int safe) { c->how = safe ? &secured : &plain; }
__attribute__((noipa)) int is_secured(struct connection *c) { return c->how == &secured; }
__attribute__((noipa)) int is_large(int x) {
    int sum = 0;
    for (const struct step *step = steps; step < steps + 3; step++)
        sum += step->run(x) * step->times;
    return sum > 3;
}

int main(int argc, char **argv) {
    (void)argv;
    struct connection *c = malloc(sizeof *c);
    open_it(c, argc & 1);
    return printf("%d %d %d\n", c->how->read(argc) < secured.most, is_secured(c), is_large(argc)) < 0;
}
