//# refuse R-START .init_array
//# near accept

// A new global object with a constructor needs one more entry of the list.
#include <cstdio>

extern "C" int rand();

#ifdef FIXED
struct Seed {
    int value;
    Seed() : value(rand()) {}
} seed;
#endif

__attribute__((noinline)) int answer(int x) {
#ifdef FIXED
    return x + seed.value;
#elif defined(NEAR)
    return x + rand() % 5;
#else
    return x + rand();
#endif
}

int main(int argc, char **) { return std::printf("%d\n", answer(argc)) < 0; }
