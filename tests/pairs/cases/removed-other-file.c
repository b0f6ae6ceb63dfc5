//# refuse R-REMOVED tick
//# near accept
//# near hot start_a | tick

// A handler of one file is gone, and one of the same name and type came to another file, where it takes something else: whose
// address live timers hold is not what the new one replaces. Near: it moved to another file, as a caller of both shows.
#include <stdio.h>
#include <stdlib.h>

struct timer {
    void (*call)(void *);
    void *with;
    struct timer *next;
} *all;

__attribute__((noinline)) void on_tick(void (*call)(void *), void *with) {
    struct timer *made = malloc(sizeof *made);
    made->call = call;
    made->with = with;
    made->next = all;
    all = made;
}

int ticks;
void start_a(int now);
void start_b(int now);

int main(int argc, char **argv) {
    (void)argv;
    start_a(argc);
    start_b(argc);
    for (struct timer *at = all; at; at = at->next)
        at->call(at->with);
    return 0;
}
//# part a.c
#include <stdio.h>

void on_tick(void (*call)(void *), void *with);
extern int ticks;
#if defined(NEAR)
void tick(void *with);
#elif !defined(FIXED)
static void tick(void *with) {
    (void)with;
    ticks++;
}
#endif

void start_a(int now) {
#ifdef FIXED
    if (now > 3)
        puts("no ticks");
#else
    (void)now;
    on_tick(tick, 0);
#endif
}
//# part b.c
#include <stdio.h>

void on_tick(void (*call)(void *), void *with);
extern int ticks;

struct queue {
    char name[8];
    int length;
};
static struct queue queue = {"queue", 0};

#if defined(FIXED)
static void tick(void *with) {
    struct queue *queue = with;
    queue->length++;
    printf("%s %d\n", queue->name, queue->length);
}
#elif defined(NEAR)
void tick(void *with) {
    if (!with)
        ticks += 2;
}
#endif

void start_b(int now) {
#ifdef FIXED
    on_tick(tick, &queue);
#endif
    queue.length += now;
}
