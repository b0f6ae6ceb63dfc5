//# refuse R-SIZE pool
//# near accept

// Smaller is no better: what lies behind is still in use.
#include <cstdio>

#ifdef FIXED
long pool[4];
#else
long pool[8];
#endif

__attribute__((noinline)) long take(int x) {
#ifdef NEAR
    return pool[x & 3]++;
#else
    return pool[x % (sizeof pool / sizeof pool[0])]++;
#endif
}

int main(int argc, char **) { return std::printf("%ld\n", take(argc)) < 0; }
