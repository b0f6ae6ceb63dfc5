#ifdef __clang__
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noipa))
#endif

struct Shape {
    virtual ~Shape();
    virtual double area() const = 0;
    virtual const char *name() const = 0;
};

void check(int x);
