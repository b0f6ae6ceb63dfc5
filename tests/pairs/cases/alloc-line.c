//# refuse R-ALLOC make
//# lines 3
//# near accept
//# near lines 3

// An allocator that is told the line of each call: lines move with every fix, sizes do not.

#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) void *traced_alloc(size_t size, const char *file, int line) {
    void *made = malloc(size + 16);
    if (!made)
        fprintf(stderr, "%s:%d\n", file, line);
    return made;
}

#define obtain(size) traced_alloc(size, __FILE__, __LINE__)

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = obtain(96);
#else
    char *made = obtain(48);
#endif
#ifdef NEAR
    made[0] = (char)(x + 1);
#else
    made[0] = (char)x;
#endif
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d\n", make(argc)[0]) < 0;
}
