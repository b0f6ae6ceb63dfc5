//# refuse R-START prepare(char const*)
//# near accept
//# near hot count(int)

// The function that makes a static is as it was, but what is called before, and writes what the static is made of, is not.
// Near: what is called before and changed fills nothing that the static is made of.
#include <cstdio>
#include <cstring>
#include <string>

static char buffer[64];
static int greetings;

struct Greeting {
    std::string text;
    __attribute__((noipa)) Greeting() : text(buffer) {}
};

__attribute__((noipa)) void prepare(const char *from) {
#ifdef FIXED
    std::strncpy(buffer, from, sizeof buffer - 1);
#else
    std::strcpy(buffer, from);
#endif
}

__attribute__((noipa)) void count(int more) {
#ifdef NEAR
    if (greetings > 1000000)
        greetings = 0;
#endif
    greetings += more;
}

extern "C" __attribute__((noipa)) unsigned long greet(const char *one) {
    count(1);
    prepare(one);
    static const Greeting made;
    return made.text.size() * 5;
}

int main(int argc, char **argv) { return std::printf("%lu\n", greet(argv[argc - 1])) < 0; }
