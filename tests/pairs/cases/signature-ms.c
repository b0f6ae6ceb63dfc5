//# flags -shared -fPIC
//# refuse R-SIGNATURE check
//# near accept

// The prototype stays, and parameters come in other registers: `ms_abi` now, `sysv_abi` before. GNU's debug data do not
// tell of it, and the code does. Near: called as before.
#include <stdio.h>

#ifdef FIXED
#define HOW __attribute__((ms_abi))
#else
#define HOW __attribute__((sysv_abi))
#endif

HOW int check(int x, long more) {
#ifdef NEAR
    return x * 1000 + (int)more;
#else
    return x * 500 + (int)more;
#endif
}
