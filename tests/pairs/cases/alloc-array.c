//# refuse R-ALLOC make
//# near accept

// Only the size of an item is constant, and another allocator takes the first one's place.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) char *make(char *old, size_t count) {
#ifdef FIXED
    return reallocarray(old, count, 32);
#elif defined(NEAR)
    return reallocarray(old, count, 24);
#else
    free(old);
    return calloc(count, 24);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    char *first = reallocarray(calloc(4000, 2), 4000, 4);
    return printf("%d\n", make(first, (size_t)argc)[0]) < 0;
}
