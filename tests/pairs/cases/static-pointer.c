//# note R-STATIC current
//# accept
//# near accept

// A new variable that points into the running image, and a new constant beside it.
#include <stdio.h>

int shared = 7;

#ifdef FIXED
static int *current = &shared;
#endif

__attribute__((noinline)) int answer(int x) {
#ifdef FIXED
    if (x > 100)
        current = 0;
    return current ? *current + x : 0;
#elif defined(NEAR)
    return shared + x + 1;
#else
    return shared++ + x;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
