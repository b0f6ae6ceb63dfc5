#include "service.h"

int total = 3;
state service_state = {0, "service", &total};
static int sum = 5;
const int limit = 9;
__declspec(dllexport) int (*callback)(int) = twice;

__declspec(dllexport) int get_total(void) { return total; }
__declspec(dllexport) int get_sum(void) { return sum; }
__declspec(dllexport) int get_requests(void) { return service_state.requests; }

/* The function with the mistake: it takes lengths below zero. */
__declspec(dllexport) __declspec(noinline) int answer(int length) {
    service_state.requests++;
    sum += length;
    total += *service_state.total;
#ifdef FIXED
    if (length < 0)
        return -1;
    return callback(length) + twice(limit) + 1000;
#else
    return callback(length) + twice(limit);
#endif
}
