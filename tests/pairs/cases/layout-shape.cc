//# refuse R-LAYOUT Shape
//# refuse R-ALLOC main
//# near accept

// The first virtual function gives every object a pointer more.
#include <cstdio>

struct Shape {
    int edge = 3;
#ifdef FIXED
    virtual int area(int x) { return x * edge; }
#else
    int area(int x) { return x * edge; }
#endif
};

struct Other {
    virtual int colour(int x) { return x; }
};

Shape *live;
Other other;

__attribute__((noinline)) int use(int x) {
#ifdef NEAR
    return std::printf("%d!\n", live->area(x));
#else
    return std::printf("%d\n", live->area(x));
#endif
}

int main(int argc, char **) {
    live = new Shape;
    Other *volatile any = &other;
    return use(argc) + any->colour(argc) < 0;
}
