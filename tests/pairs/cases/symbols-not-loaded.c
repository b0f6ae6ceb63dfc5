//# flags -g
//# accept
//# near accept

// Link-time optimization leaves a symbol for the debug data of each file (`table.c.7317d117`) in a section that is not
// loaded. Its value is a place in that section, and not an address, though something may lie at that address.
#include <stdio.h>

#ifdef FIXED
#define PLACE "0x5001"
#else
#define PLACE "0x5000"
#endif
__asm__(".pushsection .debug_marks,\"\",@progbits\n"
        ".zero " PLACE "\n"
        "marks.c.7317d117: .byte 0\n"
        ".popsection\n");

int table[4096] = {[0 ... 4095] = 7};

__attribute__((noinline)) int answer(int x) {
#if defined(FIXED) || defined(NEAR)
    return table[x & 4095] + 2;
#else
    return table[x & 4095] + 1;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++) {
        table[i & 4095] += i;
        printf("%d\n", answer(i));
    }
    return 0;
}
