//# refuse R-START chosen(char const*)
//# near accept
//# near hot length(char const*)

// A static is made of what another function returned before, which returns something else now. Near: another function
// that is called before returns something else, of which the static is not made.
#include <cstdio>
#include <string>

struct Greeting {
    std::string text;
    __attribute__((noipa)) explicit Greeting(const char *said) : text(said) {}
};

__attribute__((noipa)) const char *chosen(const char *one) {
#ifdef FIXED
    return *one ? one + 1 : one;
#else
    return one + 1;
#endif
}

__attribute__((noipa)) unsigned long length(const char *one) {
    unsigned long length = 0;
#ifdef NEAR
    while (length < 4096 && one[length])
#else
    while (one[length])
#endif
        length++;
    return length;
}

extern "C" __attribute__((noipa)) unsigned long greet(const char *one) {
    const unsigned long all = length(one);
    const char *said = chosen(one);
    static const Greeting made(said);
    return made.text.size() * 5 + all;
}

int main(int argc, char **argv) { return std::printf("%lu\n", greet(argv[argc - 1])) < 0; }
