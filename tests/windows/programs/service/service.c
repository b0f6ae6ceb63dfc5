#include "service.h"

#ifdef INITIAL
int total = 30;
#else
int total = 3;
#endif
state service_state = {0, "service", &total};
static int sum = 5;
const int limit = 9;
__declspec(dllexport) int (*callback)(int) = twice;

__declspec(dllexport) int get_total(void) { return total; }
__declspec(dllexport) int get_sum(void) { return sum; }
__declspec(dllexport) int get_requests(void) { return service_state.requests; }

#ifdef THREAD
__declspec(thread) int of_thread = 1;
__declspec(dllexport) int get_of_thread(void) { return of_thread; }
#endif

#ifdef IMPORTS
__declspec(dllimport) unsigned __stdcall GetTickCount(void);
__declspec(dllimport) unsigned __stdcall GetCurrentThreadId(void);
#endif

#ifdef EXPORTS
__declspec(dllexport) int get_limit(void) { return limit; }
#endif

/* Only the fixed builds have it. */
#if defined(FIXED) || defined(SECOND)
static int refusals;
__declspec(noinline) int refuse(int length) {
    refusals++;
    return -refusals - (length & 0);
}
#endif

#ifdef WIDER
#define MORE , int more
#define ADD + more
#else
#define MORE
#define ADD
#endif

/* The function with the mistake: it takes lengths below zero. */
__declspec(dllexport) __declspec(noinline) int answer(int length MORE) {
    service_state.requests++;
    sum += length;
    total += *service_state.total;
#ifdef THREAD
    of_thread++;
#endif
#ifdef IMPORTS
    sum += GetTickCount() & 1;
#ifdef MORE_IMPORTS
    sum += GetCurrentThreadId() & 1;
#endif
#endif
#ifdef FIXED
    if (length < 0)
        return refuse(length);
    return callback(length) + twice(limit) + 1000 ADD;
#else
    return callback(length) + twice(limit);
#endif
}

/* Another one, which only the second fix repairs. */
__declspec(dllexport) __declspec(noinline) int halve(int value) {
    sum += value;
#ifdef SECOND
    if (value & 1)
        return refuse(value);
#endif
    return value / 2;
}
