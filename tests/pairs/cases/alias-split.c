//# flags -shared -fPIC
//# refuse R-REMOVED put_remote
//# near accept
//# near hot put_local

// Two exported names of one function, of which the fix makes two: only one of them can be what is hooked. Near: both names
// keep one function, which changed.
static int total;

int put_local(int x) {
#ifdef NEAR
    if (x > 9)
        return -1;
#endif
    return total += x;
}

#ifdef FIXED
int put_remote(int x) {
    if (x < 0 || x > 9)
        return -1;
    return total += x;
}
#else
int put_remote(int x) __attribute__((alias("put_local")));
#endif
