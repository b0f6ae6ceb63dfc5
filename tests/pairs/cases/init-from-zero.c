//# refuse R-INIT table
//# near accept

// A table in .bss that starts with contents in the fixed build.
#include <stdio.h>

#ifdef FIXED
int table[4] = {1, 2, 3, 4};
#else
int table[4];
#endif

__attribute__((noinline)) int sum(int from) {
    int all = 0;
    for (int i = from & 3; i < 4; i++)
#ifdef NEAR
        all += 2 * table[i]++;
#else
        all += table[i]++;
#endif
    return all;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", sum(i));
    return 0;
}
