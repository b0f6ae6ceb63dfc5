//# flags -shared -fPIC
//# refuse R-REMOVED take
//# near accept
//# near hot other

// The fix makes one exported name an alias of a function that checks; who is bound to the function that had this name goes on
// calling it. Near: the function that became an alias was nobody's but the library's own.
static int total;

int take_checked(int x) {
    if (x < 0 || x > 9)
        return -1;
    return total += x;
}

#ifdef FIXED
int take(int x) __attribute__((alias("take_checked")));
#else
int take(int x) { return total += x; }
#endif

__attribute__((noipa, visibility("hidden"))) int halve(int x);
#ifdef NEAR
int halve(int x) __attribute__((alias("take_checked"), visibility("hidden")));
#else
int halve(int x) { return x / 2; }
#endif

__attribute__((noipa)) int other(int x) {
#ifdef FIXED
    return halve(x) + 2;
#else
    return halve(x) + 1;
#endif
}
