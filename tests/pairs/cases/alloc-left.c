//# refuse R-ALLOC make
//# near accept

// Of an allocator that is known by its name only its own parameters may be sizes. Near: what is handed to who calls it stands
// in the register behind them.
#include <stdio.h>
#include <stdlib.h>

__attribute__((noipa)) void *pool_alloc(int *pool, unsigned size) {
    *pool += (int)size;
    return malloc(size + 8);
}

int pool;

__attribute__((noinline, noclone)) void *entry(int *from, unsigned size, int code) {
    int *made = pool_alloc(from, size);
    *made = code;
    return made;
}

__attribute__((noinline)) int make(int x) {
#ifdef FIXED
    int *made = entry(&pool, 96, 100);
#elif defined(NEAR)
    int *made = entry(&pool, 48, 200);
#else
    int *made = entry(&pool, 48, 100);
#endif
    return made[0] + x;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d\n", make(argc)) < 0;
}
