//# refuse R-BIND enter
//# near accept
//# near hot enter

// A private variable of one file is gone, and another file got a global one of that name: what the running one holds is not
// what the new one counts. Near: the variable was made global in its own file.
#include <stdio.h>

void leave(void);
void enter(void);

int main(void) {
    leave();
    enter();
    return 0;
}
//# part leave.c
#include <stdio.h>

#if defined(NEAR)
long count;
#elif !defined(FIXED)
static long count;
#endif

__attribute__((noinline)) void leave(void) {
#ifdef FIXED
    puts("left");
#else
    count += 1000000;
    printf("left %ld\n", count);
#endif
}
//# part enter.c
#include <stdio.h>

int table[4];
#if defined(FIXED)
long count;
#elif defined(NEAR)
extern long count;
#endif

__attribute__((noinline)) void enter(void) {
#if defined(FIXED)
    if (count < 4)
        table[count++] = 1;
    printf("entered %ld\n", count);
#elif defined(NEAR)
    printf("entered %d %ld\n", table[0], count);
#else
    printf("entered %d\n", table[0]);
#endif
}
