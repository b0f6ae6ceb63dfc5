//# refuse R-RESUME run
//# near accept
// The live table leads into the old version, and a patch does not write to variables.
#include <stdio.h>
#if defined FIXED
#define MOST 100
#define ROOM 512
#else
#define MOST 101
#define ROOM 256
#endif
__attribute__((noinline)) void use(char *p, int n) {
    p[0] = (char)n;
}
__attribute__((noinline)) int run(const unsigned char *p, int x) {
    static void *ops[] = {&&stop, &&inc, &&dbl, &&lim};
    char room[ROOM];
    use(room, ROOM);
    if (x < 0)
        ops[1] = ops[2];
    goto *ops[*p++];
inc:
    x++;
    goto *ops[*p++];
dbl:
    x *= 2;
    goto *ops[*p++];
lim:
    if (x > MOST)
        x = MOST;
    goto *ops[*p++];
stop:
    use(room, x);
    return x;
}
int main(void) {
#ifdef NEAR
    puts("near");
#endif
    return printf("%d\n", run((const unsigned char *)"\1\2\3\0", 500)) < 0;
}
