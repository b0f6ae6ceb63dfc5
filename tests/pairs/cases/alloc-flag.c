//# refuse R-ALLOC make
//# near accept

// A program's own allocators, of which nobody knows what they do with their arguments; a flag is not set.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char room[8192];
static size_t used;

__attribute__((noipa)) char *pool_alloc(void *pool, size_t size, int flags) {
    used += size;
    return room + used + (pool ? flags : 1);
}
__attribute__((noipa)) char *pool_zalloc(void *pool, size_t size, int flags) {
    used += size;
    return memset(room + used + (pool ? flags : 1), 0, size);
}

__attribute__((noinline)) char *make(void *pool, int x) {
#ifdef FIXED
    char *made = pool_zalloc(pool, 96, 0);
#elif defined(NEAR)
    char *made = pool_zalloc(pool, 48, 0);
#else
    char *made = pool_alloc(pool, 48, 0);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    char *first = pool_alloc(argv, 400, 1), *second = pool_zalloc(argv, 800, 2);
    first[0] = second[0] = 0;
    return printf("%d%d%d\n", make(argv, argc)[0], first[0], second[0]) < 0;
}
