/* Types of live data that change in ways which keep their size. */

#ifdef ENUM
enum Mode { OFF, FAST, SLOW };
#else
enum Mode { OFF, SLOW, FAST };
#endif

struct Flags {
#ifdef BITS
    unsigned mode : 4, level : 3, rest : 25;
#else
    unsigned level : 3, mode : 4, rest : 25;
#endif
};

struct First {
    int id;
};
struct Second {
    int count;
};

#ifdef BASE
struct Both : Second, First {
#else
struct Both : First, Second {
#endif
    int sum;
};

struct Plain {
    long long size;
#ifdef VIRTUAL
    virtual int area() const { return 1; }
#else
    long long other;
#endif
};

Mode mode = OFF;
Flags flags;
Both both;
Plain plain;

extern "C" __declspec(dllexport) __declspec(noinline) int answer(int value) {
#ifdef FIXED
    if (value < 0)
        return -1;
#endif
    mode = FAST;
    flags.level = value & 7;
    flags.mode = 3;
    both.sum = both.id + both.count + value;
    plain.size = value;
    return both.sum + int(plain.size) + flags.level + int(mode);
}
