//# refuse R-VTABLE Shape
//# refuse R-VTABLE Square
//# near accept

// A new virtual function makes every table longer.
#include <cstdio>

struct Shape {
    virtual ~Shape() {}
    virtual int area(int x) { return x; }
    virtual int edge(int x) { return x + 1; }
#ifdef FIXED
    virtual int colour(int x) { return x + 7; }
#endif
};
struct Square : Shape {
    int area(int x) override;
};

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
