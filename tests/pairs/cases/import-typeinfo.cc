//# accept
//# note R-IMPORT typeinfo for std::out_of_range
//# together
//# near accept

// A kind of exception that the program never threw: the loader copies its description into the fixed program, and the
// running one has no copy. Its address is all that is needed. Near: one that it did throw.
#include <cstdio>
#include <stdexcept>

__attribute__((noinline)) int pick(const char *text, int at) {
#ifdef FIXED
    if (at > 8)
        throw std::out_of_range("far behind");
#elif defined(NEAR)
    if (at > 8)
        throw std::runtime_error("far behind");
#endif
    if (at < 0)
        throw std::runtime_error("before");
    return text[at];
}

int main(int argc, char **argv) {
    try {
        return std::printf("%d\n", pick(argv[0], argc - 1)) < 0;
    } catch (const std::exception &told) {
        return std::puts(told.what()) < 0;
    }
}
