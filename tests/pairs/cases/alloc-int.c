//# refuse R-ALLOC make
//# near accept

// A function of the program's own takes the size as an int, which it widens for malloc. Near: it is asked for as much, and
// another member is set.
#include <stdio.h>
#include <stdlib.h>

struct node {
    long first, second, third;
};

__attribute__((noipa)) void *fetch(int size) {
    void *made = malloc(size);
    if (!made)
        exit(1);
    return made;
}

__attribute__((noipa)) struct node *make(long n) {
#ifdef FIXED
    struct node *made = fetch(sizeof(struct node) + 8);
#else
    struct node *made = fetch(sizeof(struct node));
#endif
#ifdef NEAR
    made->second = n + 1;
#else
    made->second = n;
#endif
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%ld\n", make(argc)->second) < 0;
}
