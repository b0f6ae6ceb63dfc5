//# refuse R-ALLOC make
//# near accept

// Mapped memory has a size too.
#include <stdio.h>
#include <sys/mman.h>

__attribute__((noinline)) char *make(int x) {
#ifdef FIXED
    const unsigned long size = 65536;
#else
    const unsigned long size = 16384;
#endif
    char *made = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#ifdef NEAR
    made[1] = (char)x;
#endif
    made[0] = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d\n", make(argc)[0]) < 0;
}
