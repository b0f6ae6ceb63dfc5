//# accept
//# hot Limit::Limit(int)
//# near accept
//# near hot main

// What seldom runs of a constructor is called after one of its two names, `C2`, while the constructor itself goes by the other one.
// Near: only its caller differs.
#include <cstdio>
#include <stdexcept>
#include <string>

struct Limit {
    std::string name;
    int *values;
    Limit(int n);
};

#ifdef FIXED
#define MOST "at most 64"
#else
#define MOST "at most 46"
#endif

__attribute__((noinline)) Limit::Limit(int n) : name("limit") {
    if (n > 64)
        throw std::length_error(MOST);
    values = new int[n];
}

#ifdef NEAR
#define MORE 2
#else
#define MORE 1
#endif

int main(int argc, char **) {
    try {
        Limit limit(argc * MORE);
        std::puts(limit.name.c_str());
    } catch (const std::exception &what) {
        std::puts(what.what());
    }
    return 0;
}
