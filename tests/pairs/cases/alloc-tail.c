//# refuse R-ALLOC make
//# near accept

// The function ends with the call. Near: one that tells a number, and returns nothing.

#include <stdio.h>
#include <stdlib.h>

struct parser {
    char *(*obtain)(size_t);
    void (*fail)(int);
};

__attribute__((noipa)) void print(int code) { printf("%d\n", code); }
__attribute__((noipa)) char *plain(size_t size) { return calloc(size, 1); }

__attribute__((noinline)) char *make(struct parser *parser) {
#ifdef FIXED
    return parser->obtain(96);
#else
    return parser->obtain(48);
#endif
}

__attribute__((noinline)) void fail(struct parser *parser) {
#ifdef NEAR
    parser->fail(404);
#else
    parser->fail(400);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    struct parser *parser = malloc(sizeof *parser);
    parser->obtain = plain;
    parser->fail = print;
    fail(parser);
    return printf("%d\n", make(parser)[0] + argc) < 0;
}
