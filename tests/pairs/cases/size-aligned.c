//# compiler clang
//# refuse R-SIZE state
//# near accept
//# near hot reset

// New code writes all of a variable at once, for which the compiler aligned it anew; the running one lies as it lay. Near:
// another part of it is written.
#include <stdio.h>

struct state {
    int a, b, c, d;
};
static int odd = 7;
static struct state state = {1, 2, 3, 4};

__attribute__((noinline)) void reset(int to) {
    state.a = to;
    state.d = to;
#if defined(FIXED)
    state.b = to;
    state.c = to;
#elif defined(NEAR)
    state.b = to;
#endif
}

__attribute__((noinline)) void show(struct state *shown, int *number) {
    printf("%d %d %d %d %d\n", (*number)++, shown->a++, shown->b++, shown->c++, shown->d++);
}

int main(int argc, char **argv) {
    (void)argv;
    reset(argc);
    show(&state, &odd);
    return 0;
}
