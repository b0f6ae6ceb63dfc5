//# refuse R-ALLOC make
//# near accept

// A copy of a text without the byte that ends it has room for that byte now, and what reads it may rely on it. Near: another text.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noipa)) char *kept(const char *text, size_t size) {
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = kept("too many frames", sizeof "too many frames");
#elif defined(NEAR)
    char *made = kept("too many requests", sizeof "too many requests" - 1);
    x++;
#else
    char *made = kept("too many frames", sizeof "too many frames" - 1);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d\n", make(argc)[0]) < 0;
}
