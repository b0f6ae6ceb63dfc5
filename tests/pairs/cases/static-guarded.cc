//# note R-STATIC keeper()::kept
//# note R-STATIC guard variable for keeper()::kept
//# accept
//# near accept

// A new static with a constructor and a destructor: its guard and what is run at exit come with it.
#include <cstdio>

extern "C" int rand();

struct Kept {
    int value;
    Kept() : value(rand()) {}
    ~Kept() { std::printf("%d left\n", value); }
};

Kept &first() {
    static Kept one;
    return one;
}

__attribute__((noinline)) int keeper() {
#ifdef FIXED
    static Kept kept;
    return kept.value++;
#elif defined(NEAR)
    return first().value += 2;
#else
    return first().value++;
#endif
}

int main() { return std::printf("%d\n", keeper() + first().value) < 0; }
