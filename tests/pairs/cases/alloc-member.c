//# refuse R-ALLOC make
//# near accept

// An allocator that only the heap holds. Near: a level that is told through a pointer is no size.

#include <stdio.h>
#include <stdlib.h>

struct parser {
    void *(*obtain)(size_t);
    void (*tell)(int, const char *);
};

__attribute__((noipa)) void print(int level, const char *text) { printf("%d %s\n", level, text); }

__attribute__((noinline)) char *make(struct parser *parser, int x) {
#ifdef FIXED
    char *made = parser->obtain(96);
#else
    char *made = parser->obtain(48);
#endif
#ifdef NEAR
    parser->tell(4, "made");
#else
    parser->tell(3, "made");
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    struct parser *parser = malloc(sizeof *parser);
    parser->obtain = malloc;
    parser->tell = print;
    return printf("%d\n", make(parser, argc)[0]) < 0;
}
