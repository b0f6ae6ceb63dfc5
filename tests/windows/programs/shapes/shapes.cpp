/* C++: virtual functions, overloads, variables of a class, of a namespace and of one file. */

namespace shapes {

struct Shape {
    virtual int area(int factor) const;
    virtual int corners() const { return 4; }
    int side = 2;
    static int measured;
};

int Shape::measured = 4;

int Shape::area(int factor) const {
    measured++;
#ifdef FIXED
    if (factor < 0)
        return 0;
#endif
    return side * side * factor;
}

struct Box : Shape {
    int area(int factor) const override { return Shape::area(factor) * 6; }
    int corners() const override { return 8; }
};

static Box box;
static Shape shape;
static const char *const names[] = {"one", "two"};
static int last;

__attribute__((noinline)) int measure(int which, int factor) {
    last = which;
#ifdef FIXED
    if (factor > 1000)
        return -1;
#endif
    const Shape &found = which ? static_cast<const Shape &>(box) : shape;
    return found.area(factor) + found.corners() + names[which & 1][0];
}

__attribute__((noinline)) int measure(long which) { return measure(int(which), 1) + last; }

} // namespace shapes

extern "C" __declspec(dllexport) int area(int factor) { return shapes::measure(1, factor); }
extern "C" __declspec(dllexport) int flat(int factor) { return shapes::measure(0, factor); }
extern "C" __declspec(dllexport) int along(int which) { return shapes::measure(long(which)); }
extern "C" __declspec(dllexport) int measured(int) { return shapes::Shape::measured; }

/* What a C++ runtime would bring. */
extern "C" {
int _fltused;
int __stdcall _DllMainCRTStartup(void *, unsigned, void *) { return 1; }
__attribute__((aligned(8))) extern const unsigned char _load_config_used[0x140] = {0x40, 0x01};
}
