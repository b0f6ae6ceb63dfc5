#include "service.h"

/* Unchanged by the fix, called by what is changed, and with state of its own: a patch's
 * copy of it must never run. */
static int calls;

__declspec(noinline) int twice(int value) {
    calls++;
    return value * 2 + (service_state.requests & 0);
}

__declspec(dllexport) int get_calls(void) { return calls; }
