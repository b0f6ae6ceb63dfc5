//# flags -shared -fPIC
//# refuse R-CONST limits
//# near accept

// Programs read an exported table of a library by themselves.
#ifdef FIXED
const int limits[3] = {10, 20, 30};
#else
const int limits[3] = {10, 20, 40};
#endif

int limit(int level) {
#if defined(FIXED) || defined(NEAR)
    if (level < 0)
        return 0;
#endif
    return limits[level % 3];
}
