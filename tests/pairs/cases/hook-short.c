//# flags -falign-functions=1 -fcf-protection=none
//# refuse R-HOOK tiny
//# near accept

// Three bytes and no padding: there is no room for a jump. Near: its caller changed, which has room.
#include <stdio.h>

#ifdef FIXED
__asm__(".text\n.globl tiny\n.type tiny, @function\ntiny:\n.cfi_startproc\nmov $2, %al\nret\n.cfi_endproc\n.size tiny, .-tiny\n"
#else
__asm__(".text\n.globl tiny\n.type tiny, @function\ntiny:\n.cfi_startproc\nmov $1, %al\nret\n.cfi_endproc\n.size tiny, .-tiny\n"
#endif
        ".globl behind\n.type behind, @function\nbehind:\n.cfi_startproc\nxor %eax, %eax\nret\n.cfi_endproc\n.size behind, .-behind\n");

extern char tiny(void), behind(void);

__attribute__((noinline)) int answer(int x) {
#ifdef NEAR
    return tiny() + behind() + x + 1;
#else
    return tiny() + behind() + x;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    for (int i = 0; i < argc; i++)
        printf("%d\n", answer(i));
    return 0;
}
