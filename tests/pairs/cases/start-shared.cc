//# refuse R-START greet
//# near accept
//# near hot greet

// Two statics of one function, whose guards' addresses the compiler keeps in one register, one after the other; the
// second one is made of another text. Near: neither is
// made for a number below zero.
#include <cstdio>
#include <string>

struct Greeting {
    std::string text;
    __attribute__((noipa)) explicit Greeting(const char *said) : text(said) {}
};

extern "C" __attribute__((noipa)) unsigned long greet(int x) {
#ifdef NEAR
    if (x < 0)
        return 0;
#endif
    static const Greeting one("one");
#ifdef FIXED
    static const Greeting other("three");
#else
    static const Greeting other("other");
#endif
    return one.text.size() * 5 + other.text.size() + static_cast<unsigned long>(x);
}

int main(int argc, char **) { return std::printf("%lu\n", greet(argc)) < 0; }
