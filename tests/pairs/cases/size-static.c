//# refuse R-SIZE seen at 8
//# near accept

// The same for a variable of one file.
#include <stdio.h>

#ifdef FIXED
static unsigned char seen[512];
#else
static unsigned char seen[256];
#endif

__attribute__((noinline)) int note(int x) {
#ifdef NEAR
    return seen[x & 127]++;
#else
    return seen[x & (sizeof seen - 1)]++;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", note(i));
    return 0;
}
