//# compiler clang
//# flags -O3
//# accept
//# unhooked check
//# near accept
//# near hooked weigh
// clang passes `r->len` itself where the callee only reads it, and the pointer where it writes.
#include <stdio.h>
#include <unistd.h>
struct request {
    int len, kind;
};
static volatile int seen;
__attribute__((noinline)) static int check(struct request *r) {
#ifdef FIXED
    if (r->len > 100)
        r->len = 100;
#endif
    seen++;
    return r->len + 1;
}
__attribute__((noinline)) static int weigh(int n) {
    seen += n;
#ifdef NEAR
    return n * 5;
#else
    return n * 3;
#endif
}
__attribute__((noinline)) static void serve(int n) {
    for (;;) {
        struct request r = {n * 50 + seen, 1};
        int found = check(&r);
#ifdef NEAR
        printf("%d %d\n", found, weigh(n));
#else
        printf("%d %d %d\n", found, weigh(n), r.len);
#endif
        usleep(200000);
    }
}
int main(int count, char **words) {
    (void)words;
    serve(count);
}
