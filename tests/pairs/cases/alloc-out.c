//# refuse R-ALLOC make
//# near accept

// The allocator returns a state, and writes down where the memory is.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pool {
    int (*obtain)(size_t, void **);
};

__attribute__((noipa)) int plain(size_t size, void **made) {
    *made = malloc(size);
    return *made == NULL;
}

__attribute__((noinline)) int make(struct pool *pool, int x) {
    void *made;
#ifdef FIXED
    if (pool->obtain(96, &made))
#else
    if (pool->obtain(48, &made))
#endif
        return 0;
#ifdef NEAR
    ((char *)made)[0] = (char)(x + 1);
#else
    ((char *)made)[0] = (char)x;
#endif
    return ((char *)made)[0];
}

int main(int argc, char **argv) {
    (void)argv;
    struct pool *pool = calloc(1, sizeof *pool);
    pool->obtain = plain;
    return printf("%d\n", make(pool, argc)) < 0;
}
