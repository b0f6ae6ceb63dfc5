//# refuse R-INIT greeting
//# near accept

// A pointer that starts at another text; near: the text is in the code that prints it.
#include <stdio.h>

#ifdef FIXED
const char *greeting = "good day";
#else
const char *greeting = "hello";
#endif

__attribute__((noinline)) int greet(int times) {
#ifdef NEAR
    return printf("%s, friend %d\n", greeting, times);
#else
    return printf("%s %d\n", greeting, times);
#endif
}

__attribute__((noinline)) void choose(const char *text) { greeting = text; }

int main(int argc, char **argv) {
    if (argc > 2)
        choose(argv[1]);
    return greet(argc) < 0;
}
