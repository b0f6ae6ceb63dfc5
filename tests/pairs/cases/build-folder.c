//# change-folder /elsewhere
//# accept
//# note R-BUILD folders of the sources
//# hot answer
//# near accept

// Built in another folder: its path is in the debug data alone here, and only the fix differs; but where a program has it in
// its texts, as assertions do, the hot set is too large, and the note says where to look.
#include <stdio.h>

__attribute__((noinline)) int answer(int x) {
#if defined(FIXED) || defined(NEAR)
    return x * 1000 + 2;
#else
    return x * 1000 + 1;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
