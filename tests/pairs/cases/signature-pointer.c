//# note R-SIGNATURE handler
//# accept
//# near accept

// Live data hold the address of a handler: old and new callers must not mix, which the switch sees to.
#include <stdio.h>

struct entry {
    const char *name;
    int (*handler)();
};

#ifdef FIXED
__attribute__((noinline)) int handler(int x, int y) { return printf("%d %d\n", x, y); }
#elif defined(NEAR)
__attribute__((noinline)) int handler(int x) { return printf("%d!\n", x); }
#else
__attribute__((noinline)) int handler(int x) { return printf("%d\n", x); }
#endif

struct entry entries[1] = {{"first", (int (*)())handler}};

__attribute__((noinline)) int call(int x) { return entries[x & 0].handler(x); }

int main(int argc, char **argv) {
    if (argc > 7)
        entries[0].name = argv[1];
    return call(argc) < 0;
}
