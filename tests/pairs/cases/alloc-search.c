//# compiler clang
//# flags -fno-plt
//# accept
//# near accept

// A function of another library that is called out of a register, and whose name says what it does, is no allocator.

#include <stdio.h>
#include <string.h>

#ifdef FIXED
#define SIGN '@'
#elif defined(NEAR)
#define SIGN '0'
#else
#define SIGN '8'
#endif

__attribute__((noinline)) int count(const char *text) {
    int found = 0;
    while ((text = strchr(text, SIGN))) {
        found++;
        text++;
    }
    return found;
}

int main(int argc, char **argv) { return printf("%d\n", count(argv[argc - 1])) < 0; }
