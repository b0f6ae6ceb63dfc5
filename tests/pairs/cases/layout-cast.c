//# refuse R-LAYOUT node
//# near accept

// No variable of the replaced function has the type: it gets at the data by a cast.
#include <stdio.h>
#include <stdlib.h>

struct node {
    long key;
#ifdef FIXED
    long depth;
#endif
    long value;
};
struct other {
    long key, value;
#ifdef NEAR
    long last[8];
#endif
};

__attribute__((noinline)) long use(void *at, long x) {
#ifdef NEAR
    return x - ((struct node *)at)->value * 3;
#else
    return x - ((struct node *)at)->value;
#endif
}

__attribute__((noinline)) long look(void *at) { return ((struct other *)at)->value; }

int main(int argc, char **argv) {
    (void)argv;
    void *at = calloc(1, 256);
    return printf("%ld %ld\n", use(at, argc), look(at)) < 0;
}
