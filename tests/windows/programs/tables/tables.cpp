/* Tables whose symbols have no size: of virtual functions, of types, of assembly. */

inline void *operator new(unsigned long long, void *at) noexcept { return at; }

namespace shapes {

struct Shape {
#ifdef SWAPPED
    virtual int corners() const;
    virtual int area(int factor) const;
#else
    virtual int area(int factor) const;
    virtual int corners() const;
#endif
#ifdef LONGER
    virtual int edges() const;
#endif
    int side = 2;
};

struct Named {
    virtual int name() const;
    int letters = 3;
};

int Shape::area(int factor) const { return side * factor; }
int Shape::corners() const { return 4; }
int Named::name() const { return letters; }
#ifdef LONGER
int Shape::edges() const { return 4; }
#endif

/* Both functions are there in every build. */
struct Box : Shape, Named {
    int area(int factor) const override { return side * factor * 6; }
    int name() const override { return letters + 1; }
};

struct Ball : Shape {
    int area(int factor) const override { return side * factor * 3; }
#ifdef POINTS
    int corners() const override { return 9; }
#endif
};

namespace {
struct Hidden : Named {
    int name() const override { return letters + 7; }
};
Hidden hidden;
} // namespace

static Box box;
static Ball ball;
static Shape shape;

__attribute__((noinline)) Shape *made(int which) {
    switch (which) {
    case 0: return new (&shape) Shape;
    case 1: return new (&box) Box;
    default: return new (&ball) Ball;
    }
}

__attribute__((noinline)) const Named *named(int which) {
    return which ? static_cast<const Named *>(&hidden) : &box;
}

__attribute__((noinline)) int is_box(Shape *of) { return dynamic_cast<Box *>(of) != nullptr; }

__attribute__((noinline)) int checked(int size) {
    if (size < 0)
#ifdef THROWS
        throw long(size);
#else
        throw size;
#endif
    return size * 2;
}

extern int called;
__attribute__((noinline)) int caught(int size) {
    try {
        return checked(size);
#ifdef CATCHES
    } catch (long) {
#else
    } catch (int) {
#endif
        return called;
    }
}

/* The code is the same, and what says when an exception is handled is not. */
__attribute__((noinline)) int tried(volatile int *from) {
    __try {
        return checked(*from);
#ifdef TRIES
    } __except (called > 3) {
#else
    } __except (1) {
#endif
        return -1;
    }
}

int called;

} // namespace shapes

extern "C" {
extern const int limits[4];
extern int (*const steps[2])(int);
__attribute__((noinline)) int limit(int which) { return limits[which & 3]; }
__attribute__((noinline)) int step(int which, int from) { return steps[which & 1](from); }
int first_step(int from) { return from + 1; }
int second_step(int from) { return from + 2; }
}

#ifdef LIMITS
#define LAST ".long 5\n"
#else
#define LAST ".long 4\n"
#endif
#ifdef STEPS
#define STEP_LIST ".quad second_step\n.quad first_step\n"
#else
#define STEP_LIST ".quad first_step\n.quad second_step\n"
#endif
__asm__(".section .rdata,\"dr\"\n.p2align 4\n.globl limits\nlimits:\n.long 1\n.long 2\n.long 3\n" LAST
        ".p2align 4\n.globl steps\nsteps:\n" STEP_LIST ".text\n");

extern "C" __declspec(dllexport) int answer(int which) {
    using namespace shapes;
    Shape *one = made(which);
    return one->area(which) + one->corners() + named(which)->name() + is_box(one) + caught(which) +
           tried(&called) + limit(which) + step(which, which);
}
