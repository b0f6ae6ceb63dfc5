//# accept
//# apart
//# near accept
//# near together

// The function takes the lock now that its caller took: a frame inside the old caller that meets the new function waits for
// itself. Others call it, too. Near: the lock is taken where it was.
#include <pthread.h>
#include <stdio.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int all;
__attribute__((noipa)) void add(int n) {
#ifdef FIXED
    pthread_mutex_lock(&lock);
#endif
    putchar(n);
#ifdef NEAR
    all += n & 0xffff;
#else
    all += n;
#endif
#ifdef FIXED
    pthread_mutex_unlock(&lock);
#endif
}
__attribute__((noipa)) void once(int n) { add(n); }
__attribute__((noipa)) void serve(int n) {
#ifndef FIXED
    pthread_mutex_lock(&lock);
#endif
#ifdef NEAR
    if (n < 1000)
        add(n);
#else
    add(n);
#endif
#ifndef FIXED
    pthread_mutex_unlock(&lock);
#endif
}
int main(int count, char **words) {
    (void)words;
    once(count);
    serve(count);
    return printf("%d\n", all) < 0;
}
