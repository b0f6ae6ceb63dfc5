//# refuse R-LAYOUT count(int)::seen
//# near accept

// A static variable of a function holds elements of another type in a template of the same size.
#include <cstdio>

#ifdef FIXED
typedef long element;
#else
typedef int element;
#endif

template <typename Key, typename Value> struct list {
    Key first;
    Value *rest;
};

__attribute__((noinline)) int count(int x) {
    static list<int, element> seen;
    seen.first += x;
#ifdef NEAR
    return seen.rest ? int(seen.rest[x]) : seen.first + 1;
#else
    return seen.rest ? int(seen.rest[x]) : seen.first;
#endif
}

int main(int argc, char **) { return std::printf("%d\n", count(argc)) < 0; }
