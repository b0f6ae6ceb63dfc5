//# refuse R-INIT settings
//# near accept

// One member of a structure starts otherwise.
#include <cstdio>

struct Settings {
    int size;
    bool strict;
};
#ifdef FIXED
Settings settings = {64, true};
#else
Settings settings = {64, false};
#endif

__attribute__((noinline)) int use(int x) {
#ifdef NEAR
    settings.strict = true;
#endif
    return settings.strict ? x : x + settings.size++;
}

int main(int argc, char **) { return std::printf("%d\n", use(argc)) < 0; }
