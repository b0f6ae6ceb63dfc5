//# refuse R-ALLOC make
//# near accept

// The number of elements changed; near: only what is done with them.

#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) int *make(int x) {
#ifdef FIXED
    int *made = calloc(12, sizeof(int));
#else
    int *made = calloc(10, sizeof(int));
#endif
    if (made)
#ifdef NEAR
        made[x & 7] = x + 1;
#else
        made[x & 7] = x;
#endif
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d\n", make(argc)[1]) < 0;
}
