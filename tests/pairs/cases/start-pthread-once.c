//# refuse R-START prepare
//# near accept
//# near hot again

// What pthread_once has called is called no more. Near: a function that is called by name, too, changed.
#include <pthread.h>
#include <stdio.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_once_t twice = PTHREAD_ONCE_INIT;
int limit, other;

__attribute__((noinline)) static void prepare(void) {
#ifdef FIXED
    limit = 50;
#else
    limit = 100;
#endif
}

__attribute__((noinline)) static void again(void) {
#ifdef NEAR
    other += 2;
#else
    other += 3;
#endif
}

__attribute__((noinline)) int answer(int x) {
    pthread_once(&once, prepare);
    pthread_once(&twice, again);
    if (x > 2)
        again();
    return x < limit;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d %d\n", answer(argc), other) < 0;
}
