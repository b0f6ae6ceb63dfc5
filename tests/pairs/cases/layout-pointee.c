//# refuse R-LAYOUT table
//# near accept

// A member points to numbers of another size: new code steps through live ones by the wrong distance. Near: bytes are bytes.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct table {
    unsigned size;
#ifdef FIXED
    uint32_t *counts;
#else
    uint16_t *counts;
#endif
#ifdef NEAR
    unsigned char *name;
    void *more;
#else
    char *name;
    char *more;
#endif
    int (*done)(int);
    struct table *next;
};

__attribute__((noinline)) int use(struct table *at, int x) {
    int sum = 0;
    for (unsigned i = 0; i < at->size; i++)
        sum += at->counts[i];
#ifdef NEAR
    return sum + x + at->name[1] + 1;
#else
    return sum + x + at->name[1];
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    struct table *at = calloc(1, 256);
    at->name = (void *)(at + 1);
    return printf("%d\n", use(at, argc)) < 0;
}
