//# note R-START fill
//# accept
//# near accept
//# near quiet R-START

// A table is filled at its first use, and a flag says that it was: another polynomial comes too late. Near: what reads it, and what
// an option leaves out.
#include <stdio.h>
#include <stdlib.h>

static unsigned table[256];
static int ready;
static int quiet;

__attribute__((noipa)) void fill(void) {
    for (unsigned i = 0; i < 256; i++) {
        unsigned sum = i;
        for (int bit = 0; bit < 8; bit++)
#ifdef FIXED
            sum = sum & 1 ? sum >> 1 ^ 0xedb88320u : sum >> 1;
#else
            sum = sum & 1 ? sum >> 1 ^ 0xedb88321u : sum >> 1;
#endif
        table[i] = sum;
    }
}

__attribute__((noipa)) unsigned check(const unsigned char *text, unsigned long size) {
    unsigned sum = ~0u;
    if (!ready) {
        fill();
        ready = 1;
    }
    while (size--)
        sum = table[(sum ^ *text++) & 255] ^ sum >> 8;
    return ~sum;
}

__attribute__((noipa)) void say(int x) {
#ifdef NEAR
    printf("%d!\n", x);
#else
    printf("%d\n", x);
#endif
}

int main(int argc, char **argv) {
    if (argc > 2)
        quiet = 1;
    int all = 0;
    for (int i = 0; i < argc; i++) {
        all += (int)check((const unsigned char *)argv[i], 2);
        if (!quiet)
            say(all);
    }
    return all == 5;
}
