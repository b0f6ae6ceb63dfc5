//# accept
//# note R-IMPORT strnlen
//# near accept

// The program never called strnlen, so the loader never looked for it: the tool will.
#include <stdio.h>
#include <string.h>

__attribute__((noinline)) int length(const char *text) {
#ifdef FIXED
    return (int)strnlen(text, 64);
#elif defined(NEAR)
    return text ? (int)strlen(text) : 0;
#else
    return (int)strlen(text);
#endif
}

int main(int argc, char **argv) { return printf("%d\n", length(argv[argc - 1])) < 0; }
