//# refuse R-BIND answer
//# near accept

// Two statics of one name went, two of other sizes came: which is which cannot be told.
#include <stdio.h>

__attribute__((noinline)) int other(int x) {
#ifdef NEAR
    return x * 2000 + 1;
#else
    return x * 1000 + 1;
#endif
}

__attribute__((noinline)) int answer(int x) {
    int all;
#ifdef FIXED
    { static short count; all = count++ * x; }
    { static char count; all += count++; }
#else
    { static int count; all = count++ * x; }
    { static long count; all += (int)count++; }
#endif
    return all;
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i) + other(i));
    return 0;
}
