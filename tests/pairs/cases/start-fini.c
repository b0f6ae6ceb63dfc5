//# refuse R-START .fini_array
//# near accept

// What runs at the end is listed too.
#include <stdio.h>

int ready = 1;

#ifdef FIXED
__attribute__((destructor)) static void finish(void) { ready = 0; }
#endif

__attribute__((noinline)) int answer(int x) {
#ifdef NEAR
    return x + ready + 27;
#else
    return x + ready++;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
