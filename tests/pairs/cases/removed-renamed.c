//# refuse R-REMOVED live
//# near note R-STATIC refused
//# near accept

// A counter gets another name: the new one would start at zero, and what was counted would be lost. Near: the old one is no
// longer needed, and the new one has other users.
#include <stdio.h>

#ifdef FIXED
#define live connections
#endif
long live;
#ifdef NEAR
long refused;
#endif

__attribute__((noipa)) int enter(int most) {
    if (live >= most) {
#ifdef NEAR
        refused++;
#endif
        return printf("full of %ld\n", live);
    }
#ifdef FIXED
    return (int)++live + most;
#else
    return (int)++live;
#endif
}

__attribute__((noipa)) void leave(void) {
#ifdef FIXED
    if (live > 0)
#endif
        live--;
}

int main(int argc, char **argv) {
    (void)argv;
    enter(argc);
    leave();
    return 0;
}
