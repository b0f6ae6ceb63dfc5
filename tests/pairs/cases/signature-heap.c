//# note R-SIGNATURE handler
//# hot call|handler
//# accept
//# near hot handler
//# near accept

// Requests in the heap hold the address of a handler, whose callers change with it: all of them or none, which the switch sees
// to. No variable of the image leads to it, so nothing but the address that somebody took says who may call it.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
typedef int (*handle)(int, const char *);
#else
typedef int (*handle)(int);
#endif

struct request {
    struct request *next;
    handle handle;
};

#ifdef FIXED
__attribute__((noinline)) static int handler(int x, const char *who) { return printf("%d %s\n", x, who); }
#elif defined(NEAR)
__attribute__((noinline)) static int handler(int x) { return printf("%d!\n", x); }
#else
__attribute__((noinline)) static int handler(int x) { return printf("%d\n", x); }
#endif

__attribute__((noinline)) struct request *make(struct request *next) {
    struct request *made = malloc(sizeof *made);
    if (!made)
        abort();
    made->next = next;
    made->handle = handler;
    return made;
}

__attribute__((noinline)) int call(struct request *of, int x) {
    int sum = 0;
    for (; of; of = of->next)
#ifdef FIXED
        sum += of->handle(x, "all");
#else
        sum += of->handle(x);
#endif
    return sum;
}

int main(int argc, char **argv) {
    (void)argv;
    struct request *all = NULL;
    for (int i = 0; i < argc; i++)
        all = make(all);
    return call(all, argc) < 0;
}
