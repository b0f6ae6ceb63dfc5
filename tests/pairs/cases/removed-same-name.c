//# refuse R-REMOVED handle
//# near accept
//# near hot handle | handle

// Two files of one name in two folders, each with a handler of one name: the same defect is mended in both, and with other names
// of those that enter them nothing says which is which. What has their addresses goes on calling them as they were. Near: who
// enters them says it.
#include <stdio.h>
#include <stdlib.h>

struct handler {
    int (*call)(int);
    struct handler *next;
} *all;

__attribute__((noinline)) void enter(int (*call)(int)) {
    struct handler *made = malloc(sizeof *made);
    made->call = call;
    made->next = all;
    all = made;
}

#ifdef FIXED
#define enter_a register_a
#define enter_b register_b
#endif
void enter_a(void);
void enter_b(void);

int main(int argc, char **argv) {
    (void)argv;
    enter_a();
    enter_b();
    for (struct handler *at = all; at; at = at->next)
        printf("%d\n", at->call(argc));
    return 0;
}
//# part a/handler.c
void enter(int (*call)(int));

__attribute__((noinline)) static int handle(int x) {
#if defined(FIXED) || defined(NEAR)
    if (x > 5)
        return -1;
#endif
    return x * 3;
}

#ifdef FIXED
void register_a(void) { enter(handle); }
#else
void enter_a(void) { enter(handle); }
#endif
//# part b/handler.c
void enter(int (*call)(int));

__attribute__((noinline)) static int handle(int x) {
#if defined(FIXED) || defined(NEAR)
    if (x > 5)
        return -1;
#endif
    return x * 11;
}

#ifdef FIXED
void register_b(void) { enter(handle); }
#else
void enter_b(void) { enter(handle); }
#endif
