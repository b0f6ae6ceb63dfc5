// A fix that may be patched live: one more check.
#include <stdio.h>

__attribute__((noinline)) int answer(int asked) {
#ifdef FIXED
    if (asked > 16)
        asked = 16;
#endif
    return printf("%.*s\n", asked, "a heartbeat");
}

int main(int argc, char **argv) {
    (void)argv;
    return answer(argc * 30) < 0;
}
