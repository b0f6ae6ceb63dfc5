//# refuse R-BIND count()
//# near accept
//# near hot other(int)

// Two statics of one name in one function, which a number in their names tells apart; the fix puts one in front, and the
// numbers move: the new first one would be bound to what holds something else. Near: another function changed, and all keep their numbers.
#include <cstdio>
#include <cstdlib>

struct Counter {
    long count;
    const char *name;
    void add() { count++; }
};
struct Histogram {
    const char *name;
    long buckets[4];
    void add() { buckets[rand() & 3]++; }
};

template <class Kind> __attribute__((noipa)) Kind *enter(const char *name) {
    Kind *entered = new Kind();
    entered->name = name;
    return entered;
}

#define METRIC(Kind, name)                                                                                             \
    do {                                                                                                               \
        static Kind *metric = enter<Kind>(name);                                                                       \
        metric->add();                                                                                                 \
    } while (0)

__attribute__((noinline)) void count() {
#ifdef FIXED
    METRIC(Histogram, "sizes");
#endif
    METRIC(Counter, "requests");
    METRIC(Histogram, "times");
}

__attribute__((noinline)) void twice() {
    METRIC(Counter, "first");
    METRIC(Counter, "second");
}

__attribute__((noipa)) int other(int x) {
#ifdef NEAR
    return x * 3;
#else
    return x * 2;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    count();
    twice();
    return std::printf("%d\n", other(argc)) < 0;
}
