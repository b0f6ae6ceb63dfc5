//# refuse R-REMOVED dangerous
//# near accept

// A handler is registered when the program starts. Without its source it can be called all the same.
#include <stdio.h>

int (*handlers[4])(int);

__attribute__((noinline)) static int harmless(int x) { return x + 1; }
#ifndef FIXED
__attribute__((noinline)) static int dangerous(int x) {
#ifdef NEAR
    return x > 0 ? 0 : x;
#else
    return x * 99;
#endif
}
#endif

__attribute__((noinline)) void add(int at, int (*handler)(int)) { handlers[at & 3] = handler; }

int main(int argc, char **argv) {
    (void)argv;
    add(0, harmless);
#ifndef FIXED
    add(1, dangerous);
#endif
    for (int i = 0; i < argc && handlers[i & 3]; i++)
        printf("%d\n", handlers[i & 3](i));
    return 0;
}
