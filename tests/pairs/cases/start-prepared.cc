//# refuse R-START greet
//# near accept
//# near hot greet

// What a static is made of is written into a buffer first; it is another text now. Near: what is done with it changed.
#include <cstdio>
#include <cstring>
#include <string>

static char buffer[64];

struct Greeting {
    std::string text;
    __attribute__((noipa)) explicit Greeting(const char *said) : text(said) {}
};

extern "C" __attribute__((noipa)) unsigned long greet(const char *one) {
#ifdef FIXED
    std::strcpy(buffer, one + 1);
#else
    std::strcpy(buffer, one);
#endif
    static const Greeting made(buffer);
#ifdef NEAR
    return made.text.size() * 3;
#else
    return made.text.size() * 5;
#endif
}

int main(int argc, char **argv) { return std::printf("%lu\n", greet(argv[argc - 1])) < 0; }
