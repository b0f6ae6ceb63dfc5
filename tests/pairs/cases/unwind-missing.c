//# refuse R-UNWIND bare
//# near accept

// Assembly without .cfi directives: nobody can unwind through it.
#include <stdio.h>

__asm__(".text\n.globl bare\n.type bare, @function\nbare:\n"
#ifdef FIXED
        "lea 2(%rdi,%rdi), %eax\n"
#else
        "lea 1(%rdi,%rdi), %eax\n"
#endif
        "nopw 0(%rax,%rax)\nret\n.size bare, .-bare\n"
        ".globl framed\n.type framed, @function\nframed:\n.cfi_startproc\n"
#ifdef NEAR
        "lea 2(%rdi,%rdi), %eax\n"
#else
        "lea 1(%rdi,%rdi), %eax\n"
#endif
        "nopw 0(%rax,%rax)\nret\n.cfi_endproc\n.size framed, .-framed\n");

extern int bare(int), framed(int);

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", bare(i) + framed(i));
    return 0;
}
