//# refuse R-ALLOC make
//# near accept

// So many items became one.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) char *make(size_t count) {
#ifdef FIXED
    return malloc(24);
#elif defined(NEAR)
    return reallocarray(NULL, count, 24);
#else
    return calloc(count, 24);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    char *first = reallocarray(malloc(4000), 4000, 4);
    return printf("%d%d\n", make((size_t)argc)[0], first[0]) < 0;
}
