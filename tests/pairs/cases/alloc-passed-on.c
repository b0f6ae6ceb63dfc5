//# refuse R-ALLOC make
//# near accept

// A wrapper without a telling name, which hands its argument straight on.

#include <stdio.h>
#include <stdlib.h>

int count;

__attribute__((noinline)) void *fresh(int kind, unsigned long size) {
    count += kind;
    return malloc(size);
}

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = fresh(x, 96);
#elif defined(NEAR)
    char *made = fresh(x + 1, 48);
#else
    char *made = fresh(x, 48);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d\n", make(argc)[0]) < 0;
}
