//# flags -shared -fPIC
//# change-compiler clang
//# accept
//# note R-BUILD compiler and flags
//# near accept

// The fix came out of another compiler: what differs by that alone is in the hot set, and the note says why.
#include <stdio.h>

int answer(const char *text, int x) {
    for (const char *at = text; *at; at++)
        x += printf("%c %d\n", *at, x);
#if defined(FIXED) || defined(NEAR)
    return x * 1000 + 2;
#else
    return x * 1000 + 1;
#endif
}
