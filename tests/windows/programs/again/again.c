/* A function whose loop leads to its first instruction, where a hook would be. */

#ifdef FIXED
#define ADD "1000"
#else
#define ADD "0"
#endif

__attribute__((naked, noinline)) static int turns(int value) {
    __asm__("subl $1, %ecx\n"
            "jg turns\n"
            "movl %ecx, %eax\n"
            "addl $" ADD ", %eax\n"
            "retq");
}

__declspec(dllexport) __declspec(noinline) int call(int value) { return turns(value) * 2; }
