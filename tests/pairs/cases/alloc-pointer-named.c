//# flags -fPIC -Wl,--no-relax
//# refuse R-ALLOC make
//# near accept

// A variable that holds nothing at first, and tells by its name that it will hold an allocator. Code for libraries reads its
// address out of a slot.

#include <stdio.h>
#include <stdlib.h>

void *(*theirMalloc)(size_t);

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = theirMalloc(96);
#elif defined(NEAR)
    char *made = theirMalloc(48);
    x++;
#else
    char *made = theirMalloc(48);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    theirMalloc = malloc;
    return printf("%d\n", make(argc)[0]) < 0;
}
