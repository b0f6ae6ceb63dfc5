//# refuse R-LAYOUT item
//# near accept

// The same place and type by another name may mean something else: a person has to say that it does not. Near: the
// name of its type is another one.
#include <stdio.h>
#include <stdlib.h>

#ifdef FIXED
struct item { int first, room; };
#elif defined(NEAR)
typedef int length;
struct item { int first; length second; };
#else
struct item { int first, second; };
#endif

__attribute__((noinline)) int use(struct item *value, int x) {
#ifdef NEAR
    return x + (value->first + value->second);
#elif defined(FIXED)
    return x * 3 - (value->first + value->room);
#else
    return x - (value->first + value->second);
#endif
}

struct item *live;

int main(int argc, char **argv) {
    (void)argv;
    live = (struct item *)calloc(1, 256);
    return printf("%d\n", use(live, argc)) < 0;
}
