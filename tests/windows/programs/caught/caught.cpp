/* C++ whose fix catches, cleans up and throws. */

static volatile int depth, refused;

struct held {
    held() { depth = depth + 1; }
    ~held() { depth = depth - 1; }
};

struct refusal {
    int why;
    refusal(int why) : why(why) {}
    refusal(const refusal &other) : why(other.why) {
#ifdef COUNTS
        refused = refused + 1;
#endif
    }
};

extern "C" __declspec(noinline) int parse(int size) {
    if (size < 0)
        throw size;
    return size * 2;
}

/* The base catches somewhere, too. */
extern "C" __declspec(dllexport) int guess(int size) {
    try {
        return parse(size);
    } catch (int) {
        return depth + refused;
    }
}

extern "C" __declspec(dllexport) __declspec(noinline) int answer(int size) {
#ifdef THROWS
    if (size > 100)
        throw refusal(size);
#elif defined(FIXED)
    held one;
    try {
        return parse(size);
    } catch (int) {
        return -1;
    }
#endif
    return parse(size);
}
