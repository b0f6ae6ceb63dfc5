#include "holes.h"

#ifdef DUPLICATE
__declspec(dllexport) __declspec(noinline) int also(int n) {
    first -= n;
    return first - MORE;
}
#endif

#ifdef MERGED
static int count = 200;
__declspec(dllexport) __declspec(noinline) int also(int n) {
    count += n;
    return count - MORE;
}
#endif

#ifdef IMPORTED
/* A linker for MinGW asks for what would write the pointers when the library is loaded. */
void _pei386_runtime_relocator(void) {}
#endif

int others(int n) { return second + n; }
