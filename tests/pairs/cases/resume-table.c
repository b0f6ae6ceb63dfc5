//# accept
//# copies ops
//# near accept
// A table of `&&label` belongs to its version of the function: the fix's must lead into the fix's code, although the offsets
// are the same and only the size of the frame differs.
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
    static const void *const ops[] = {&&stop, &&inc, &&dbl, &&lim};
    char room[ROOM];
    use(room, ROOM);
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
