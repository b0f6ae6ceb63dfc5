//# compiler clang
//# flags -no-pie -fno-pie
//# accept
//# hot limit
//# near accept
//# near hot other

// `limits[level - 2]` is an address in the padding before the table, and so is `limits[level - 1]`: zeros both.
// Near: what is read is as far from the table as it was.
#include <stdio.h>

const int limits[8] = {11, 12, 13, 14, 15, 16, 17, 18};

#ifdef FIXED
#define BEFORE 2
#else
#define BEFORE 1
#endif

__attribute__((noinline)) int limit(long level) { return limits[level - BEFORE]; }

#ifdef NEAR
__attribute__((noinline)) int other(long level) { return limits[level] + 1; }
#else
__attribute__((noinline)) int other(long level) { return limits[level]; }
#endif

int main(int argc, char **argv) {
    (void)argv;
    printf("%d %d\n", limit(argc + 1), other(argc));
    return 0;
}
