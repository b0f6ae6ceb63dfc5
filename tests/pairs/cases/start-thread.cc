//# compiler clang++
//# refuse R-START greet
//# near accept
//# near hot greet

// What a static is made of is a thread's own. Near: what is done with it changed.
#include <cstdio>
#include <cstring>
#include <string>

static thread_local char path[64];

struct Greeting {
    std::string text;
    __attribute__((noinline)) explicit Greeting(const char *said) : text(said) {}
};

extern "C" __attribute__((noinline)) unsigned long greet(int x) {
#ifdef FIXED
    std::strcpy(path, "/etc/other");
#else
    std::strcpy(path, "/etc/invivo");
#endif
    static const Greeting made(path);
#ifdef NEAR
    return made.text.size() * 3 + static_cast<unsigned long>(x);
#else
    return made.text.size() * 5 + static_cast<unsigned long>(x);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    return std::printf("%lu\n", greet(argc)) < 0;
}
