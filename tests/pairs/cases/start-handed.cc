//# refuse R-START greet
//# near accept
//# near hot greet

// A static is made at its first use of what the function was called with: of another parameter now, which
// the same instructions take out of the same register. Near: what is done with it changed.
#include <cstdio>
#include <string>

struct Greeting {
    std::string text;
    __attribute__((noipa)) explicit Greeting(const char *said) : text(said) {}
};

extern "C" __attribute__((noipa)) unsigned long greet(const char *one, const char *other) {
#ifdef FIXED
    static const Greeting made(other);
#else
    static const Greeting made(one);
#endif
#ifdef NEAR
    return made.text.size() * 3;
#else
    return made.text.size() * 5;
#endif
}

int main(int argc, char **argv) { return std::printf("%lu\n", greet(argv[0], argc > 1 ? argv[1] : "you")) < 0; }
