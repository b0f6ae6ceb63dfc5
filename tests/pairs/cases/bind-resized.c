//# refuse R-BIND note
//# near accept

// A variable of a function that grew: its name has a number, and without its size nothing tells that it is the same.
#include <stdio.h>

__attribute__((noinline)) int note(int x) {
#ifdef FIXED
    static unsigned char seen[512];
    return seen[x & 511]++;
#elif defined(NEAR)
    static unsigned char seen[256];
    return seen[x & 127]++;
#else
    static unsigned char seen[256];
    return seen[x & 255]++;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", note(i));
    return 0;
}
