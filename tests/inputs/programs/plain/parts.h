// No inlining, so that the same functions change whatever the compiler thinks best.
#ifdef __clang__
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noipa))
#endif

int part_of(int x);
const char *part_name(int x);

static inline __attribute__((always_inline)) int checked(int x) {
#ifdef FIXED
    if (x > 1000) return 1000;
#endif
    return x * 3;
}
