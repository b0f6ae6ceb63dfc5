//# refuse R-LAYOUT pool
//# refuse R-LAYOUT share
//# refuse R-LAYOUT head
//# refuse R-LAYOUT H
//# near accept

// Variables of another type and the same size, none of which is a structure with a name. Near: a byte stays a byte.
#include <stdio.h>

struct conn {
    long number;
};
struct conn2 {
    double number;
};

#ifdef FIXED
static struct {
    int limit, used;
} pool = {0, 0};
static double share;
static struct conn2 *head;
typedef struct {
    int second, first;
} *H;
static unsigned char *text;
#else
static struct {
    int used, limit;
} pool = {0, 0};
static long share;
static struct conn *head;
typedef struct {
    int first, second;
} *H;
#ifdef NEAR
static unsigned char *text;
#else
static char *text;
#endif
#endif
static H handle;

__attribute__((noinline)) int use(int x) {
    pool.used += x;
    share += x;
#ifdef NEAR
    if (text && *text == 'y')
#else
    if (text && *text == 'x')
#endif
        return (int)head->number;
    return handle ? handle->first : pool.limit;
}

__attribute__((noinline)) void set(void *at) { handle = at, head = at, text = at, pool.limit = 3; }

int main(int argc, char **argv) {
    if (argc > 5)
        set(argv);
    return printf("%d\n", use(argc)) < 0;
}
