/* Functions that many threads call at once, and state that counts every call. */

static int counted;
static int weighed;

__declspec(dllexport) int get_counted(void) { return __atomic_load_n(&counted, 5); }
__declspec(dllexport) int get_weighed(void) { return __atomic_load_n(&weighed, 5); }

/* Unchanged, with state of its own: the patch must call the base's. */
static int helped;
__declspec(noinline) int help(int value) {
    __atomic_fetch_add(&helped, 1, 5);
    return value * 16;
}
__declspec(dllexport) int get_helped(void) { return __atomic_load_n(&helped, 5); }

#if defined(FIXED)
#define ADD 1
#elif defined(SECOND)
#define ADD 2
#else
#define ADD 0
#endif

__declspec(dllexport) __declspec(noinline) int count(int value) {
    __atomic_fetch_add(&counted, 1, 5);
    return help(value) + ADD;
}

/* Only the first fix has it. */
__declspec(dllexport) __declspec(noinline) int weigh(int value) {
    __atomic_fetch_add(&weighed, 1, 5);
#ifdef FIXED
    return value * 16 + 1;
#else
    return value * 16;
#endif
}
