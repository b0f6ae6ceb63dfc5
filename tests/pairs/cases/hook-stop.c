//# flags -fcf-protection=none -falign-functions=1
//# note R-HOOK overwritten
//# accept
//# near accept

// Short instructions that cannot be undone: the threads stop for a moment.
#include <stdio.h>

__asm__(".text\n.globl overwritten\n.type overwritten, @function\noverwritten:\n.cfi_startproc\n"
        "test %edi, %edi\nsetg %al\nmovzbl %al, %eax\n"
#ifdef FIXED
        "add $2, %eax\n"
#else
        "add $1, %eax\n"
#endif
        "ret\n.cfi_endproc\n.size overwritten, .-overwritten\n");

extern int overwritten(int);

__attribute__((noinline)) int answer(int x) {
#ifdef NEAR
    return overwritten(x) + x + 1;
#else
    return overwritten(x) + x;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
