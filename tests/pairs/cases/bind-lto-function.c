//# flags -flto
//# refuse R-REMOVED on_event.lto_priv.0
//# near accept
//# near hot on_event.lto_priv.2

// Link-time optimization numbers functions of one name, and without the first one the others have its number, and that of each
// other: live data hold them all. Each is known again by what it does. Near: one of three changed.
#include <stdio.h>
#include <stdlib.h>

struct handler {
    int (*call)(int);
    struct handler *next;
} *all;
int verbose;
void enter_first(void);
void enter_one(void);
void enter_two(void);

__attribute__((noinline)) void add(int (*call)(int)) {
    struct handler *made = malloc(sizeof *made);
    made->call = call;
    made->next = all;
    all = made;
}

int main(int argc, char **argv) {
    (void)argv;
    verbose = argc > 1;
    enter_first();
    enter_one();
    enter_two();
    for (struct handler *at = all; at; at = at->next)
        printf("%d %d\n", at->call(argc), verbose);
    return 0;
}
//# part first.c
void add(int (*call)(int));
extern int verbose;

#ifndef FIXED
__attribute__((noinline)) static int on_event(int x) { return x - 5; }
#endif

__attribute__((noinline)) void enter_first(void) {
#ifdef FIXED
    verbose++;
#else
    if (verbose++)
        add(on_event);
#endif
}
//# part one.c
void add(int (*call)(int));

__attribute__((noinline)) static int on_event(int x) { return x + 1000; }

__attribute__((noinline)) void enter_one(void) { add(on_event); }
//# part two.c
void add(int (*call)(int));

__attribute__((noinline)) static int on_event(int x) {
#ifdef NEAR
    if (x > 99)
        return 0;
#endif
    return x * 7;
}

__attribute__((noinline)) void enter_two(void) { add(on_event); }
