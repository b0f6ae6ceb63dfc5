//# accept
//# near accept

// The fixed program imports strlen no more: the running one goes on having it. Near: another function still does.
#include <stdio.h>
#include <string.h>

__attribute__((noinline)) int length(const char *text) {
#if defined(FIXED) || defined(NEAR)
    int count = 0;
    for (const char volatile *at = text; *at; at++)
        count++;
    return count;
#else
    return (int)strlen(text);
#endif
}

__attribute__((noinline)) int other(const char *text) {
#ifdef FIXED
    return *text;
#else
    return *text ? (int)strlen(text) : 0;
#endif
}

int main(int argc, char **argv) { return printf("%d %d\n", length(argv[argc - 1]), other(argv[0])) < 0; }
