//# flags -shared -fPIC
//# refuse R-EXPORT parse
//# near note R-EXPORT parse_all
//# near accept

// Programs are bound to what a library exports. Near: an export more.
#ifndef FIXED
int parse(int x) { return x * 3; }
#endif
#ifdef NEAR
int parse_all(int x) { return x * 5; }
#endif

int read_one(int x) {
#if defined(FIXED) || defined(NEAR)
    if (x < 0)
        return 0;
#endif
    return x + 1;
}
