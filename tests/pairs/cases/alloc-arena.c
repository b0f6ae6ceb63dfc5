//# refuse R-ALLOC make
//# near accept

// A program's own allocator hands only one of its arguments on: how much it fetches when nothing is left.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arena {
    char *at;
    size_t left;
};

__attribute__((noipa)) void *arena_alloc(struct arena *arena, size_t size, size_t chunk) {
    if (arena->left < size) {
        arena->at = malloc(chunk);
        arena->left = chunk;
    }
    arena->left -= size;
    return arena->at + arena->left;
}

__attribute__((noinline)) char *make(struct arena *arena, int x) {
#ifdef FIXED
    char *made = arena_alloc(arena, 96, 4096);
#elif defined(NEAR)
    char *made = arena_alloc(arena, 48, 4096);
    x++;
#else
    char *made = arena_alloc(arena, 48, 4096);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    struct arena arena = {NULL, 0};
    return printf("%d\n", make(&arena, argc)[0]) < 0;
}
