/* A function with an array on its stack, which the compiler guards (-fstack-protector-strong), and what a C runtime
   brings for it: the number, which is another one in each process, and what is called where the stack's is no more it. */

unsigned long long __security_cookie = 0x2b992ddfa232;
static int failures;
static void *back[5];

/* Nobody expects it to return. */
__attribute__((noinline, no_stack_protector)) void __security_check_cookie(unsigned long long number) {
    if (number == __security_cookie) return;
    failures++;
    __builtin_longjmp(back, 1);
}

__declspec(dllexport) void set_cookie(int number) { __security_cookie = number * 0x9e3779b97f4aULL; }
__declspec(dllexport) int get_failures(void) { return failures; }

/* So many make the number another one while it stands on a stack. */
#define CHANGES 7

/* More than there is room for reaches what is behind the array. */
__attribute__((noinline, no_stack_protector)) static void fill(volatile char *text, int length) {
    if (length == CHANGES) __security_cookie ^= 0x10;
    for (int at = 0; at < length; at++) text[at] = 'a';
}

#ifdef FIXED
#define ADD 1000
#else
#define ADD 0
#endif

__declspec(noinline) int spell(int length) {
    char text[32];
    fill(text, length);
    return ((volatile char *)text)[length - 1] + ADD;
}

__declspec(dllexport) __attribute__((noinline, no_stack_protector)) int spelled(int length) {
    if (__builtin_setjmp(back)) return -1;
    int answer = spell(length);
    /* A call in the last place would give up the frame that is jumped back to. */
    __asm__ volatile("" : "+r"(answer));
    return answer;
}
