//# refuse R-ALLOC make
//# near accept

// A program's own allocator, known by its name; near: calls change places.

#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) void *pool_alloc(int *pool, unsigned size) {
    *pool += (int)size;
    return malloc(size + 8);
}

int pool;

__attribute__((noinline)) int make(int x) {
#ifdef FIXED
    char *one = pool_alloc(&pool, 40), *two = pool_alloc(&pool, 24);
#elif defined(NEAR)
    char *two = pool_alloc(&pool, 24), *one = pool_alloc(&pool, 32);
#else
    char *one = pool_alloc(&pool, 32), *two = pool_alloc(&pool, 24);
#endif
    one[0] = two[0] = (char)x;
    return one[0] + two[0];
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", make(i));
    return 0;
}
