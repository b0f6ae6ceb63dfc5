/* The three kinds of functions of the description of 2007, for x86. */

int __stdcall _DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reason, (void)reserved;
    return 1;
}

/* State that a patch must share. */
__declspec(dllexport) int calls;

/* Made for hot patching: the compiler begins it with `mov edi, edi`, the linker puts padding
 * before it. */
__declspec(dllexport) __declspec(noinline) int hot(int value) {
    __atomic_fetch_add(&calls, 1, 5);
    return value * 2;
}

/* Not made for it, but by chance with padding before it and a usual begin: two instructions of
 * three bytes together. */
__asm__(".text\n\t.p2align 4, 0xcc\n\t.skip 16, 0xcc\n"
        ".globl _semi\n_semi:\n\t"
        "pushl %ebp\n\t"
        "movl %esp, %ebp\n\t"
        "movl 8(%ebp), %eax\n\t"
        "addl %eax, %eax\n\t"
        "popl %ebp\n\t"
        "retl\n\t"
        /* Neither: code right before it, and a first instruction of one byte. What can be
         * replaced is one long instruction in its middle. */
        ".globl _cold\n_cold:\n\t"
        "pushl %ebx\n\t"
        "movl 8(%esp), %ebx\n\t"
        "imull $1000, %ebx, %eax\n\t"
        "popl %ebx\n\t"
        "retl\n\t"
        ".section .drectve, \"yn\"\n\t.ascii \" /export:_semi /export:_cold\"\n\t.text");
