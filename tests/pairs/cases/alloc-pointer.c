//# refuse R-ALLOC make
//# near accept

// An allocator that is reached through a variable, which tells by what it holds first.

#include <stdio.h>
#include <stdlib.h>

void *(*obtain)(size_t) = malloc;

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = obtain(96);
#elif defined(NEAR)
    char *made = obtain(48);
    x++;
#else
    char *made = obtain(48);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    if (argc > 9)
        obtain = (void *(*)(size_t))argv;
    return printf("%d\n", make(argc)[0]) < 0;
}
