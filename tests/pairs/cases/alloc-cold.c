//# refuse R-ALLOC make
//# near accept

// The call is in the function's cold part, and what it returns is used where that leads back to.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pool {
    char *last;
    char *(*obtain)(size_t);
};

__attribute__((noipa, cold)) void tell(const char *text) { puts(text); }
__attribute__((noipa)) char *plain(size_t size) { return calloc(size, 1); }

__attribute__((noinline)) char *make(struct pool *pool, long x) {
    char *made = pool->last;
    if (!made) {
        tell("new");
#ifdef FIXED
        made = pool->obtain(96);
#else
        made = pool->obtain(48);
#endif
    }
#ifdef NEAR
    ((long *)made)[0] = x + 1;
#else
    ((long *)made)[0] = x;
#endif
    ((long *)made)[1] = x * 3;
    ((long *)made)[2] = x * 5;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    struct pool *pool = calloc(1, sizeof *pool);
    pool->obtain = plain;
    return printf("%d\n", make(pool, argc)[0]) < 0;
}
