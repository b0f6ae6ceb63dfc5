//# refuse R-CONST moves
//# near accept

// A table of operations that a live structure points to has another function in it. Near: the function changed.
#include <stdio.h>

__attribute__((noinline)) static int walk(int x) {
#ifdef NEAR
    return x + 3;
#else
    return x + 1;
#endif
}
__attribute__((noinline)) static int run(int x) { return x * 7; }

struct moves {
    int (*first)(int);
    int (*second)(int);
};
#ifdef FIXED
static const struct moves moves = {walk, walk};
static const struct moves unused = {run, run};
#else
static const struct moves moves = {walk, run};
static const struct moves unused = {run, run};
#endif

struct player {
    int health;
    const struct moves *moves;
} player = {100, &moves};

__attribute__((noinline)) int play(int x) { return player.moves->first(x) + player.moves->second(player.health--); }

int main(int argc, char **argv) {
    if (argc > 3)
        player.moves = argv ? &unused : 0;
    return printf("%d\n", play(argc)) < 0;
}
