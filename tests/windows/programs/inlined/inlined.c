/* The function with the mistake is inlined in others, in one of them over a third. */
static volatile int wrong;

/* A copy that can be called is kept, or none is. */
#ifdef KEPT
#define HELPER extern inline
#else
#define HELPER static inline
#endif

HELPER __attribute__((always_inline)) int checked(int value) {
#ifdef FIXED
    if (value < 0) {
        wrong++;
        return 0;
    }
#endif
    return value * 3 + wrong;
}

static inline __attribute__((always_inline)) int clamped(int value) {
    int found = checked(value);
    return found > 1000 ? 1000 : found;
}

__declspec(dllexport) __declspec(noinline) int first(int value) { return clamped(value) + 1; }
__declspec(dllexport) __declspec(noinline) int second(int value) { return checked(value) - 1; }
__declspec(dllexport) __declspec(noinline) int third(int value) { return value + wrong; }
