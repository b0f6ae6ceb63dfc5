//# note R-START trimmed(char const*)
//# accept
//# near accept
//# near hot greet

// What a static is made with changed, and is called elsewhere, too: there the change counts, and the static keeps what it
// was made of. Near: what is done with the static changed.
#include <cstdio>
#include <string>

__attribute__((noipa)) const char *trimmed(const char *one) {
#ifdef FIXED
    return *one ? one + 1 : one;
#else
    return one + 1;
#endif
}

struct Greeting {
    std::string text;
    __attribute__((noipa)) explicit Greeting(const char *said) : text(said) {}
};

extern "C" __attribute__((noipa)) unsigned long greet(const char *one) {
    static const Greeting made(trimmed(one));
#ifdef NEAR
    return made.text.size() * 3;
#else
    return made.text.size() * 5;
#endif
}

int main(int argc, char **argv) { return std::printf("%lu%s\n", greet(argv[argc - 1]), trimmed(argv[0])) < 0; }
