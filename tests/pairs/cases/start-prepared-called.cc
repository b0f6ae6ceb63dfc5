//# refuse R-START greet
//# near accept
//# near hot greet

// Another function writes into a buffer what a static is made of, and is handed another text now. Near: what is done
// with the static changed.
#include <cstdio>
#include <cstring>
#include <string>

static char buffer[64];

struct Greeting {
    std::string text;
    __attribute__((noipa)) Greeting() : text(buffer) {}
};

__attribute__((noipa)) void prepare(const char *from) { std::strcpy(buffer, from); }

extern "C" __attribute__((noipa)) unsigned long greet(const char *one) {
#ifdef FIXED
    prepare(one + 1);
#else
    prepare(one);
#endif
    static const Greeting made;
#ifdef NEAR
    return made.text.size() * 3;
#else
    return made.text.size() * 5;
#endif
}

int main(int argc, char **argv) { return std::printf("%lu\n", greet(argv[argc - 1])) < 0; }
