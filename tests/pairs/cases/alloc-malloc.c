//# refuse R-ALLOC make
//# near accept

// Buffers that were made before the patch are smaller than new code thinks. Near: one more buffer.

#include <stdio.h>
#include <stdlib.h>

char *more;

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = malloc(80);
#else
    char *made = malloc(64);
#endif
#ifdef NEAR
    more = malloc(80);
#endif
    if (made)
        made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    char *made = make(argc);
    return printf("%d\n", made[0]) < 0;
}
