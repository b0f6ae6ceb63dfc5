//# accept
//# unhooked weigh
//# near accept
//# near hooked weigh
// gcc does not align the stack for a callee of the same file that calls nothing and has nothing aligned on its stack.
#include <stdio.h>
#include <unistd.h>
static volatile int told;
static volatile double total;
static volatile int low, high, odd, sum;
__attribute__((noinline)) static int weigh(const char *s) {
    double w = 0;
    int n = 0;
#ifdef FIXED
    unsigned char seen[32] = {0};
    for (const char *p = s; *p; p++) {
        if (seen[*p & 31])
            continue;
        seen[*p & 31] = 1;
        w += *p * 0.5;
        n += *p;
    }
#else
    int a = 127, b = 0, c = 0, k = 0;
    for (const char *p = s; *p; p++) {
        int x = *p;
        w += x * 0.5;
        if (x < a)
            a = x;
        if (x > b)
            b = x;
        c += x & 1;
        k ^= x * 3;
        n += x;
    }
    low = a, high = b, odd = c, sum = k;
#ifdef NEAR
    low = 0;
#endif
#endif
    total += w;
    return n;
}
__attribute__((noinline)) static void spin(const char *volatile *s) {
    const char *one;
    while ((one = *s)) {
        told = weigh(one);
#if defined FIXED || defined NEAR
        told++;
#endif
        for (volatile int i = 0; i < 100; i++)
            ;
    }
}
int main(int count, char **words) {
    (void)count;
    const char *volatile s[3];
    s[0] = s[1] = s[2] = words[0];
    spin(s);
    return 0;
}
