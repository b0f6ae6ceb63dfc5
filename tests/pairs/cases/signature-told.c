//# compiler clang
//# flags -shared -fPIC
//# refuse R-SIGNATURE check
//# near accept

// The prototype stays, and parameters come in other registers: `ms_abi` now, `sysv_abi` before. The debug data tell
// of it, also where the code reads none of them. Near: called as before.
#include <stdio.h>

#ifdef FIXED
#define HOW __attribute__((ms_abi))
#else
#define HOW __attribute__((sysv_abi))
#endif

HOW int check(int x, long more) {
    (void)x, (void)more;
#ifdef FIXED
    return 2;
#elif defined(NEAR)
    return 3;
#else
    return 1;
#endif
}
