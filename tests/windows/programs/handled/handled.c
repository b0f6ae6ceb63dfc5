/* Functions that handle exceptions as C does, and some that no exception gets past. */

int missed, seen;
__declspec(dllexport) int get_missed(void) { return missed; }
__declspec(dllexport) int get_seen(void) { return seen; }

__declspec(noinline) int read_one(volatile int *from) { return *from; }

#ifdef PLAIN
__declspec(dllimport) unsigned __stdcall GetTickCount(void);
__declspec(dllexport) int guess(volatile int *from) { return read_one(from) + (int)GetTickCount(); }
#else
/* The base handles exceptions somewhere, so that it imports what does so. */
__declspec(dllexport) __declspec(noinline) int guess(volatile int *from) {
    __try {
        return read_one(from);
    } __except (1) {
        return missed;
    }
}
#endif

/* Changed by the fix, or never. */
__declspec(noinline) int look(int code) {
#ifdef DIRECT
    seen = code;
#endif
    return code == (int)0xc0000005;
}

#ifdef ASSEMBLY
/* It calls, and nothing tells how to get past it. */
__attribute__((naked)) int past(volatile int *from) {
    __asm__("subq $40, %rsp\n\tcallq read_one\n\taddq $40, %rsp\n\tretq");
}
#elif defined(LEAF)
/* It does not, and needs nothing that tells. */
__attribute__((naked)) int past(volatile int *from) {
    __asm__("movl (%rcx), %eax\n\tretq");
}
#elif defined(OTHER)
int of_another_language(void *a, void *b, void *c, void *d) { return 1; }
int past(volatile int *from);
__asm__(".text\n.globl past\npast:\n.seh_proc past\nsubq $40, %rsp\n.seh_stackalloc 40\n.seh_endprologue\n"
        "callq read_one\nnop\naddq $40, %rsp\nretq\n"
        ".seh_handler of_another_language, @except\n.seh_handlerdata\n.long 7\n.text\n.seh_endproc\n");
#else
#define past read_one
#endif

__declspec(dllexport) __declspec(noinline) int answer(volatile int *from) {
#if defined(FIXED) && !defined(NAKED)
    __try {
        return past(from);
    } __except (look(_exception_code())) {
        return ++missed, -1;
    }
#elif defined(FIXED)
    return past(from) + 1;
#else
    return past(from);
#endif
}
