/* Functions whose addresses are taken: as the compiler sees it, and behind its back. */

volatile int kept;
int (*volatile chosen)(int);

__declspec(noinline) int hidden(int value) { return value + kept; }

__declspec(noinline) int stepped(int value) {
#ifdef STEPPED
    if (value < 0)
        return 0;
#endif
    return value - kept;
}

__declspec(dllexport) void choose(void) {
#ifdef DROPPED
    chosen = 0;
#else
    chosen = stepped;
#endif
}

__declspec(dllexport) int go(int value) {
#ifdef TAKEN
    int (*function)(int);
    __asm__("leaq hidden(%%rip), %0" : "=r"(function));
    return function(value) + stepped(value);
#elif defined(SEEN)
    int (*volatile function)(int) = hidden;
    return function(value) + stepped(value);
#else
    return hidden(value) + stepped(value);
#endif
}
