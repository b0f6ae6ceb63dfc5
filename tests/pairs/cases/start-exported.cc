//# compiler clang
//# flags -shared -fPIC
//# refuse R-START greet
//# near accept
//# near hot greet

// What a static is made of is in a variable that other libraries see, too, so that it is found through a slot. Near: what is
// done with the static changed.
#include <cstdio>
#include <cstring>
#include <string>

extern "C" char path[64];
char path[64];

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
