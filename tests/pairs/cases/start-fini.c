//# refuse R-START .fini_array
//# near accept

// What runs at the end is listed too. Near: a function that only code calls.
#include <stdio.h>

int ready = 1;

#ifdef FIXED
__attribute__((destructor)) static void finish(void) { ready = 0; }
#elif defined(NEAR)
__attribute__((noinline)) static void finish(void) { ready = 0; }
#endif

__attribute__((noinline)) int answer(int x) {
#ifdef NEAR
    finish();
    return x + ready++;
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
