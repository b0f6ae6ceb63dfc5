//# refuse R-TLS buffer
//# near accept
//# near hot small

// Two thread-locals of one name and size, each of another function: those changed order, so that each would use what threads
// have of the other. Near: one of the functions changed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef NEAR
#define ROOM 15
#else
#define ROOM 16
#endif
#define SMALL                                                                                                          \
    __attribute__((noinline)) char *small(const char *text) {                                                          \
        static __thread char *buffer;                                                                                  \
        if (!buffer)                                                                                                   \
            buffer = malloc(16);                                                                                       \
        snprintf(buffer, ROOM, "%s", text);                                                                            \
        return buffer;                                                                                                 \
    }

#ifndef FIXED
SMALL
#endif

__attribute__((noinline)) char *large(const char *text) {
    static __thread char *buffer;
    if (!buffer)
        buffer = malloc(4096);
#ifdef FIXED
    if (strlen(text) >= 4096)
        return "";
#endif
    strcpy(buffer, text);
    return buffer;
}

#ifdef FIXED
SMALL
#endif

int main(int argc, char **argv) {
    (void)argc;
    printf("%s %s\n", small(argv[0]), large(argv[0]));
    return 0;
}
