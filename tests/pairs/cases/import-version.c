//# refuse R-IMPORT memcpy
//# near accept

// The same name at another version is another function.
#include <stdio.h>
#include <string.h>

#ifdef FIXED
__asm__(".symver memcpy, memcpy@GLIBC_2.2.5");
#endif

char room[65536];

__attribute__((noinline)) int keep(const char *text, unsigned size) {
#if defined(FIXED) || defined(NEAR)
    if (size > sizeof room)
        return 0;
#endif
    memcpy(room, text, size);
    return room[0];
}

int main(int argc, char **argv) { return printf("%d\n", keep(argv[0], argc)) < 0; }
