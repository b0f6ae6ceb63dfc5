#include "arm.h"

static int calls;

__declspec(noinline) int twice(int value) {
    calls++;
    return value * 2;
}

__declspec(noinline) int thrice(int value) {
    calls += 2;
    return value * 3;
}

__declspec(dllexport) int get_calls(void) { return calls; }
