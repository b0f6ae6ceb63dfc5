//# refuse R-START .init_array
//# near accept

// A new constructor would have had to run before main.
#include <stdio.h>

int ready;

#ifdef FIXED
__attribute__((constructor)) static void prepare(void) { ready = 3; }
#endif

__attribute__((noinline)) int answer(int x) {
#ifdef NEAR
    if (!ready)
        ready = 3;
#endif
    return x + ready++;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
