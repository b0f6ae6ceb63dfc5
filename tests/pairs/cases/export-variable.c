//# flags -shared -fPIC
//# refuse R-EXPORT level
//# near accept

// A variable that a library no longer exports; near: it still does, and its users changed.
#ifdef FIXED
static int level;
#else
int level;
#endif

int raise(int by) {
#if defined(FIXED) || defined(NEAR)
    if (by < 0)
        return 0;
#endif
    return level += by;
}
