//# compiler clang
//# flags -no-pie -fno-pie
//# refuse R-BIND limit
//# hot limit
//# near accept
//# near hot limit

// `TABLE[level - 1]` is an address just before the table, where something else lies: the same thing, whichever of the
// two tables the linker put behind it. Near: the table is the same one, so what lies before it is, too.
#include <stdio.h>

static const int narrow[3] = {11, 12, 13};
static const int wide[3] = {210, 220, 230};

#ifdef FIXED
#define TABLE wide
#else
#define TABLE narrow
#endif

__attribute__((noinline)) int limit(long level) {
#ifdef NEAR
    return TABLE[level - 1] + 1;
#else
    return TABLE[level - 1];
#endif
}

__attribute__((noinline)) int both(long level) { return narrow[level] + wide[level]; }

int main(int argc, char **argv) {
    (void)argv;
    printf("%d %d\n", limit(argc), both(argc));
    return 0;
}
