//# refuse R-ALLOC make(int)
//# near accept

// operator new[] with another size.
#include <cstdio>

#ifdef FIXED
constexpr int room = 48;
#else
constexpr int room = 32;
#endif

__attribute__((noinline)) char *make(int x) {
    char *made = new char[room];
#ifdef NEAR
    made[0] = static_cast<char>(x + 1);
#else
    made[0] = static_cast<char>(x);
#endif
    return made;
}

int main(int argc, char **) { return std::printf("%d\n", make(argc)[0]) < 0; }
