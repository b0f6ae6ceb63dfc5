//# refuse R-ALLOC make
//# near accept

// Zeroed memory in the place of memory that was not, and more of it. Near: as much of it.

#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = calloc(1, 96);
#elif defined(NEAR)
    char *made = calloc(1, 48);
#else
    char *made = malloc(48);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    char *first = malloc(4000), *second = calloc(4000, 2);
    first[0] = second[0] = 0;
    return printf("%d%d%d\n", make(argc)[0], first[0], second[0]) < 0;
}
