//# refuse R-SIZE name at 9
//# near accept

// A buffer that grew; near: only what is written into it is bounded.
#include <stdio.h>
#include <string.h>

#ifdef FIXED
char name[64];
#else
char name[16];
#endif

__attribute__((noinline)) int keep(const char *text) {
#ifdef NEAR
    strncpy(name, text, sizeof name / 2);
#else
    strncpy(name, text, sizeof name - 1);
#endif
    return name[0];
}

int main(int argc, char **argv) { return printf("%d\n", keep(argv[argc - 1])) < 0; }
