//# refuse R-ALLOC make
//# near accept

// Allocators that a program has written itself, which keep a word for themselves: another one, and more of it.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noipa)) char *zmalloc(size_t size) { return malloc(size + 8); }
__attribute__((noipa)) char *zcalloc(size_t size) { return calloc(1, size + 8); }

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = zcalloc(96);
#elif defined(NEAR)
    char *made = zcalloc(48);
    x++;
#else
    char *made = zmalloc(48);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    char *first = zmalloc(4000), *second = zcalloc(8000);
    first[0] = second[0] = 0;
    return printf("%d%d%d\n", make(argc)[0], first[0], second[0]) < 0;
}
