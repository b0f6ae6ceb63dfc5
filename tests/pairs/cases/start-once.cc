//# refuse R-START pattern()
//# near accept
//# near hot pattern()

// A static with a constructor is made at its first use, which was long ago: another text for it comes too late. Near: what
// is done with it changed.
#include <cstdio>
#include <string>

struct Pattern {
    std::string text;
    __attribute__((noipa)) explicit Pattern(const char *said) : text(said) {}
};

__attribute__((noinline)) unsigned long pattern() {
#ifdef FIXED
    static const Pattern made("[a-z]+\\.[a-z]+");
#else
    static const Pattern made("[a-z]+.[a-z]+");
#endif
#ifdef NEAR
    return made.text.size() * 3;
#else
    return made.text.size() * 5;
#endif
}

int main() { return std::printf("%lu\n", pattern()) < 0; }
