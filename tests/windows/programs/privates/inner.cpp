/* Functions of one file alone, in C++: debug data and linker know them by different names. */

int doubled;

namespace inner {
__attribute__((noinline)) static int twice(int value) {
    doubled++;
#ifdef FIXED
    if (value > 1000)
        return 2000;
#endif
    return value * 2;
}
} // namespace inner

extern "C" __attribute__((noinline)) int in_cpp(int value) { return inner::twice(value) + 1; }
