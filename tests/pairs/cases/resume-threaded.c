//# refuse R-RESUME run
//# near accept
// Direct threading: what was read out of the table is kept in the heap, and `goto **p` does not look at the table.
#include <stdio.h>
#include <stdlib.h>
#ifdef FIXED
#define ROOM 512
#else
#define ROOM 256
#endif
#ifdef NEAR
#define TOLD "near %d\n"
#else
#define TOLD "%d\n"
#endif
__attribute__((noinline)) void use(char *p, int n) {
    p[0] = (char)n;
}
__attribute__((noinline)) int run(const unsigned char *code, void **program, int x) {
    static void *const ops[] = {&&stop, &&inc, &&dbl};
    char room[ROOM];
    use(room, ROOM);
    if (!x) {
        do
            *program++ = ops[*code];
        while (*code++);
        return 0;
    }
    goto **program++;
inc:
    x++;
    goto **program++;
dbl:
    x *= 2;
    goto **program++;
stop:
    use(room, x);
    return x;
}
int main(void) {
    void **program = calloc(9, sizeof *program);
    run((const unsigned char *)"\1\2\1\0", program, 0);
    for (int n = 1; n < 9; n++)
        printf(TOLD, run((const unsigned char *)"\1\2\1\0", program, n));
}
