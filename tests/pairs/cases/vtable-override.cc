//# refuse R-VTABLE Square
//# near accept

// A class overrides what it inherited: live objects go on with the old table. Near: a virtual function changed.
#include <cstdio>

struct Shape {
    virtual ~Shape() {}
    virtual int area(int x) { return x; }
    virtual int edge(int x) { return x + 1; }
};
struct Square : Shape {
    int area(int x) override;
#ifdef FIXED
    int edge(int x) override;
#endif
};
#ifdef FIXED
__attribute__((noinline)) int Square::edge(int x) { return x * 4; }
#endif

__attribute__((noinline)) int Square::area(int x) {
#ifdef NEAR
    return x * x + 1;
#else
    return x * x;
#endif
}

__attribute__((noinline)) Shape *make(int x) { return x > 1 ? new Square : new Shape; }

int main(int argc, char **) {
    Shape *shape = make(argc);
    int sum = shape->area(argc) + shape->edge(argc);
    delete shape;
    return std::printf("%d\n", sum) < 0;
}
