//# note R-START set_up
//# accept
//# near accept
//# near quiet R-START

// Only main calls it, and only once, before it serves: in the running program that is over. Near: what main calls again and
// again.
#include <stdio.h>
#include <stdlib.h>

static int limit;

__attribute__((noipa)) void set_up(const char *name) {
#ifdef FIXED
    if (!*name)
        exit(1);
#endif
    limit = atoi(name);
}

__attribute__((noipa)) int serve(int x) {
#ifdef NEAR
    if (x < 0)
        return 0;
#endif
    return printf("%d %d\n", x, limit);
}

int main(int argc, char **argv) {
    set_up(argv[argc - 1]);
    while (serve(argc) > 0)
        argc = getchar();
    return 0;
}
