//# refuse R-START fill(char*, char const*)
//# near accept
//# near hot length(char const*)

// A static is made of a buffer on the stack, which another function fills otherwise now. Near: a function that is
// called before and gets no place on the stack changed.
#include <cstdio>
#include <cstring>
#include <string>

struct Greeting {
    std::string text;
    __attribute__((noipa)) explicit Greeting(const char *said) : text(said) {}
};

__attribute__((noipa)) void fill(char *into, const char *one) {
#ifdef FIXED
    std::strncpy(into, one, 63);
#else
    std::strcpy(into, one);
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
    char said[64] = "";
    const unsigned long all = length(one);
    fill(said, one);
    static const Greeting made(said);
    return made.text.size() * 5 + all;
}

int main(int argc, char **argv) { return std::printf("%lu\n", greet(argv[argc - 1])) < 0; }
