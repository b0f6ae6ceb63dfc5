#include "holes.h"

int first = 1, second = 2, seen;

#ifdef AGGREGATE
/* Two addresses that are returned in two registers stay direct. */
typedef struct {
    int *one, *other;
} both;
#ifdef NEAR
#define RETURNS
#else
#define RETURNS __attribute__((sysv_abi))
#endif
RETURNS __declspec(noinline) both pair(int n) {
    seen += n + MORE;
    return (both){&first, &second};
}
__declspec(dllexport) __declspec(noinline) int answer(int n) {
    both found = pair(n);
    return *found.one + *found.other;
}
#endif

#ifdef ALIAS
/* Another name of a variable is no variable to the compiler. */
#ifdef NEAR
#define other first
#else
extern int other __attribute__((alias("first")));
#endif
__declspec(dllexport) __declspec(noinline) int answer(int n) {
    other += n;
    return other + MORE;
}
#endif

#ifdef DUPLICATE
/* Two files use one variable: each brings the pointer to it. */
__declspec(dllexport) __declspec(noinline) int answer(int n) {
    first += n;
    return first + MORE;
}
#endif

#ifdef MERGED
/* Two files have a variable of the same name each. */
#ifdef NEAR
#define count tally
#endif
static int count = 100;
__declspec(dllexport) __declspec(noinline) int answer(int n) {
    count += n;
    return count + MORE;
}
#endif

#ifdef IMPORTED
/* A variable of another library. */
__declspec(dllimport) extern int imported;
__declspec(dllexport) __declspec(noinline) int answer(int n) { return imported + n + MORE; }
#endif

#ifdef THREAD
/* A variable that each thread has. */
__declspec(thread) int own = 1;
__declspec(dllexport) __declspec(noinline) int get_own(int n) { return own += n; }
__declspec(dllexport) __declspec(noinline) int answer(int n) {
#ifdef NEAR
    return first += n + MORE;
#else
    return own += n + MORE;
#endif
}
#endif

#ifdef UNBOUND
/* Which of the base's variables is which cannot be told. */
__declspec(dllexport) __declspec(noinline) int answer(int n) {
    if (n > 0) {
        static int calls;
        return calls += n + MORE;
    }
#ifdef NEAR
    return MORE;
#else
    static int calls;
    return calls -= n * 3 + MORE;
#endif
}
#endif

#ifdef ELSEWHERE
/* The same where other functions have them than had the base's. */
#ifdef FIXED
static __declspec(noinline) int more(int n) {
    static int calls;
    return calls += n + MORE;
}
static __declspec(noinline) int less(int n) {
    static int calls;
    return calls -= n * 3 + MORE;
}
__declspec(dllexport) __declspec(noinline) int answer(int n) { return n > 0 ? more(n) : less(n); }
#else
__declspec(dllexport) __declspec(noinline) int answer(int n) {
    if (n > 0) {
        static int calls;
        return calls += n + MORE;
    }
    static int calls;
    return calls -= n * 3 + MORE;
}
#endif
#endif

#ifdef CONSTANTS
/* Constants that hold addresses are reached through pointers, too, and stay the patch's own. */
static const char *const names[] = {"base", "fixed", "both"};
__declspec(dllexport) __declspec(noinline) int answer(int n) {
    seen++;
    return names[n % 3][0] + MORE;
}
#endif

__declspec(dllexport) int get_seen(int n) { return seen + others(n); }
