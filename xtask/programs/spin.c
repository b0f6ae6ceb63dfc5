/* Threads that do nothing but look at the clock, and say how long they were
 * kept from it.
 *
 *     spin SPINNERS SLEEPERS
 *
 * For each line on standard input, one line is printed, about the time since the
 * line before: the longest gap of any spinning thread in nanoseconds, first of
 * those during which the processor was not given to somebody else, then of all;
 * and the price of one thing, which tells which version of price.c runs. Between
 * two lines the main thread waits, so it is the one that others may borrow. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "price.h"

static atomic_ullong longest_own_ns, longest_ns;
static atomic_uint last_price;

static unsigned long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* How often the processor was taken from this thread. Waiting for memory, or for
 * a debugger, does not count: then the thread gives it up itself. */
static long times_preempted(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

static void note(atomic_ullong *longest, unsigned long long gap) {
    unsigned long long known = atomic_load_explicit(longest, memory_order_relaxed);
    while (gap > known && !atomic_compare_exchange_weak(longest, &known, gap)) {
    }
}

static void *spin(void *unused) {
    unsigned long long last = now_ns();
    long preempted = times_preempted();
    int just_now = 0;
    for (;;) {
        /* The thread runs through what is replaced, while it is replaced. */
        atomic_store_explicit(&last_price, price(1), memory_order_relaxed);
        unsigned long long now = now_ns();
        unsigned long long gap = now - last;
        last = now;
        long times = times_preempted();
        /* It may have happened between the two looks, then or now. */
        int before = just_now;
        just_now = times != preempted;
        preempted = times;
        if (!before && !just_now) note(&longest_own_ns, gap);
        note(&longest_ns, gap);
    }
    return unused;
}

static void *wait_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

static void start(void *(*work)(void *), int count) {
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL) != 0) {
            perror("pthread_create");
            exit(1);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: spin SPINNERS SLEEPERS\n");
        return 2;
    }
    int spinners = atoi(argv[1]);
    start(spin, spinners);
    start(wait_for_ever, atoi(argv[2]));
    char line[16];
    while (read(STDIN_FILENO, line, sizeof line) > 0) {
        unsigned seen = spinners > 0 ? atomic_load(&last_price) : price(1);
        unsigned long long own = atomic_exchange(&longest_own_ns, 0);
        printf("%llu %llu %u\n", own, atomic_exchange(&longest_ns, 0), seen);
        fflush(stdout);
    }
    return 0;
}
