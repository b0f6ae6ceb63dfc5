//# refuse R-ALLOC make
//# near accept

// What copies a text asks for as much memory as that text needs. Near: another text. Fixed: room that is not the text's.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noipa)) char *kept(const char *text, size_t size) {
    char *copy = malloc(size);
    return copy ? memset(copy, text[0], size) : NULL;
}

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = kept("too many frames", 200);
#elif defined(NEAR)
    char *made = kept("far too many frames", sizeof "far too many frames" - 1);
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
