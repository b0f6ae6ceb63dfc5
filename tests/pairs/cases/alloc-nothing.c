//# refuse R-ALLOC make
//# near accept

// The allocator is handed nothing of its own, which is a zero, and then a number and a size.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct stream {
    void *(*obtain)(void *own, unsigned items, unsigned size);
};

__attribute__((noipa)) void *plain(void *own, unsigned items, unsigned size) {
    return own ? NULL : malloc((size_t)items * size);
}

__attribute__((noinline)) char *make(struct stream *stream, int x) {
#ifdef FIXED
    char *made = stream->obtain(NULL, 1, 96);
#elif defined(NEAR)
    char *made = stream->obtain(NULL, 1, 48);
    x++;
#else
    char *made = stream->obtain(NULL, 1, 48);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    struct stream *stream = calloc(1, sizeof *stream);
    stream->obtain = plain;
    return printf("%d\n", make(stream, argc)[0]) < 0;
}
