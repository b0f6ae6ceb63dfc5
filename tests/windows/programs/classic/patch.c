/* The patch module for classic.dll. */

int __stdcall _DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reason, (void)reserved;
    return 1;
}

/* Its section is written by the test. */
__attribute__((section(".hotp1"), used)) __declspec(dllexport) char room[4096] = {1};

/* A fixup leads it to the target's variable. */
__declspec(dllexport) int *volatile calls = (int *)0x12345678;

__declspec(dllexport) int new_hot(int value) {
    __atomic_fetch_add(calls, 1, 5);
    return value * 3;
}

/* The function is replaced from its begin on. */
__declspec(dllexport) int new_semi(int value) { return value * 3; }

/* Two thousand instead of one, and back behind the instruction that was replaced; a fixup makes
 * the distance right. */
__asm__(".text\n.globl _new_cold\n_new_cold:\n\t"
        "imull $2000, %ebx, %eax\n"
        ".globl _back\n_back:\n\t.byte 0xe9, 0, 0, 0, 0\n\t"
        ".section .drectve, \"yn\"\n\t.ascii \" /export:_new_cold /export:_back\"\n\t.text");
