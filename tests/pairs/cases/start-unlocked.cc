//# flags -fno-threadsafe-statics
//# refuse R-START limit(int)
//# near accept

// A static that no lock guards: the compiler looks at its guard and sets it itself. What it is made of changes, and it was made.
// Near: what is done with it.
#include <cstdio>
#include <cstdlib>

struct Limit {
    int most;
    __attribute__((noinline)) explicit Limit(int most) : most(most + std::rand() % 1) {}
};

__attribute__((noinline)) int limit(int wanted) {
#ifdef FIXED
    static const Limit made(5);
#else
    static const Limit made(3);
#endif
#ifdef NEAR
    std::printf("%d, and no more than %d\n", wanted, made.most);
#else
    std::printf("%d of %d\n", wanted, made.most);
#endif
    std::puts(wanted < made.most ? "few" : "many");
    return wanted < made.most ? wanted : made.most - 1;
}

int main(int argc, char **argv) {
    (void)argv;
    std::printf("%d\n", limit(argc));
    return 0;
}
