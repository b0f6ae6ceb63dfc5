//# refuse R-START level
//# near accept
//# near hot level

// Two ways in what makes a static are exchanged, which only the target of a branch tells. Near: what is done with it changed.
#include <cstdio>

extern "C" {
extern int one, other, chosen;
int one = 1, other = 2, chosen;
__attribute__((noipa)) int take(int x) { return x; }
}

// Each way is the same number of instructions, and the first of them is jumped over or not.
extern "C" __attribute__((noipa)) int level(int x) {
    static const int made = [](int y) __attribute__((always_inline)) {
        int got = take(y);
#ifdef FIXED
        asm volatile("test %1, %1\n\tjz 2f\n1:\tadd $1, %0\n2:\tadd $2, %0\n3:" : "+r"(got) : "r"(y) : "cc");
#else
        asm volatile("test %1, %1\n\tjz 3f\n1:\tadd $1, %0\n2:\tadd $2, %0\n3:" : "+r"(got) : "r"(y) : "cc");
#endif
        return got;
    }(chosen);
#ifdef NEAR
    return made * 3 + x;
#else
    return made * 5 + x;
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    return std::printf("%d\n", level(argc) + one + other) < 0;
}
