//# refuse R-ALLOC make
//# near accept

// A variable that holds nothing at first and whose name tells nothing.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *(*obtain)(size_t);

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
    (void)argv;
    obtain = argc > 9 ? (void *(*)(size_t))argv : malloc;
    return printf("%d\n", make(argc)[0]) < 0;
}
