//# accept
//# unhooked reject
//# near accept
//# near hooked reject
// gcc finds out that the base's `reject` does not return, and puts nothing behind the call.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static volatile int bad;
__attribute__((noinline)) static void reject(const char *why) {
#ifdef FIXED
    bad++;
    fprintf(stderr, "rejected: %s\n", why);
#elif defined NEAR
    fprintf(stderr, "fatal, and the end: %s\n", why);
    exit(1);
#else
    fprintf(stderr, "fatal: %s\n", why);
    exit(1);
#endif
}
__attribute__((noinline)) static void serve(volatile int *in) {
    for (;;) {
        if (*in > 5)
            reject("too large");
#ifdef NEAR
        if (*in < -1)
#else
        if (*in < 0)
#endif
            reject("negative");
        printf("%d %d\n", *in, bad);
        usleep(200000);
        ++*in;
    }
}
int main(int count, char **words) {
    (void)words;
    volatile int in = count;
    serve(&in);
}
