//# refuse R-ALLOC make
//# near accept

// posix_memalign has its size as the third argument, behind the alignment.

#include <stdio.h>
#include <stdlib.h>

__attribute__((noinline)) char *make(int x) {
    void *made;
#ifdef FIXED
    if (posix_memalign(&made, 64, 256))
#elif defined(NEAR)
    if (posix_memalign(&made, 64, 128) || x > 77)
#else
    if (posix_memalign(&made, 64, 128))
#endif
        return 0;
    *(char *)made = (char)x;
    return made;
}

int main(int argc, char **argv) {
    (void)argv;
    return printf("%d\n", make(argc)[0]) < 0;
}
