//# refuse R-ALLOC make
//# near accept

// An allocator among other functions in one variable.

#include <stdio.h>
#include <stdlib.h>

struct hooks {
    void (*release)(void *);
    void *(*obtain)(size_t);
};

struct hooks hooks = {free, malloc};

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    char *made = hooks.obtain(96);
#elif defined(NEAR)
    char *made = hooks.obtain(48);
    x++;
#else
    char *made = hooks.obtain(48);
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    if (argc > 9)
        hooks = *(struct hooks *)argv;
    char *made = make(argc);
    int shown = printf("%d\n", made[0]);
    hooks.release(made);
    return shown < 0;
}
