#include "arm.h"

#define EXPORT __declspec(dllexport) __declspec(noinline)

int total = 3;
record records[4] = {{1, 2, "one"}, {3, 4, "two"}, {5, 6, "three"}, {7, 8, "four"}};
/* Both begin a page: code that reads one or the other differs in the page alone. */
__attribute__((aligned(4096))) int near_page[1024] = {1};
__attribute__((aligned(4096))) int far_page[1024] = {2};

/* A number in the instruction itself. */
EXPORT int constant(int value) {
#ifdef CONSTANT
    return value * 7 + 12;
#else
    return value * 7 + 11;
#endif
}

/* A number that is read from the constants. */
EXPORT double literal(double value) {
#ifdef LITERAL
    return value * 2.75 + 1.13;
#else
    return value * 2.75 + 1.12;
#endif
}

/* Where a branch leads. */
EXPORT int branch(int value) {
#ifdef BRANCH
    if (value <= total)
#else
    if (value > total)
#endif
        return twice(value) + 1;
    return thrice(value) - 1;
}

/* Whom it calls. */
EXPORT int call(int value) {
#ifdef CALL
    return thrice(value) + total;
#else
    return twice(value) + total;
#endif
}

/* What it jumps to at its end. */
EXPORT int tail(int value) {
#ifdef TAIL
    return thrice(value + 5);
#else
    return twice(value + 5);
#endif
}

/* A variable on another page, at the same place of it. */
EXPORT int page(void) {
#ifdef PAGE
    return far_page[0];
#else
    return near_page[0];
#endif
}

/* Another variable, or part of one. */
EXPORT int part(int index) {
#ifdef PART
    return records[1].second + index;
#else
    return records[1].first + index;
#endif
}

/* What it writes to. */
EXPORT void stored(int value) {
#ifdef STORED
    far_page[3] = value;
#else
    far_page[2] = value;
#endif
}

/* A text of the same length. */
EXPORT const char *text(void) {
#ifdef TEXT
    return "what is told of it";
#else
    return "what is said of it";
#endif
}

/* A function's address. */
EXPORT void *address(void) {
#ifdef ADDRESS
    return (void *)thrice;
#else
    return (void *)twice;
#endif
}

/* A table that the code jumps through. */
EXPORT int table(int value) {
    switch (value) {
    case 0: return twice(total);
    case 1: return thrice(total) + 1;
    case 2: total += 5; return 9;
    case 3: return near_page[value + total];
#ifdef TABLE
    case 4: return twice(value) - 8;
    case 5: return far_page[value] + 17;
#else
    case 5: return twice(value) - 8;
    case 4: return far_page[value] + 17;
#endif
    case 6: return thrice(7) ^ total;
    case 7: return total * total;
    case 8: total = 0; return twice(55);
    case 9: return records[2].second;
    default: return -1;
    }
}

/* A table of numbers. */
static const short squares[] = {0, 1, 4, 9, 16,
#ifdef SQUARES
                                26,
#else
                                25,
#endif
                                36, 49};
EXPORT int square(int value) { return squares[value & 7]; }

/* A page that is used in a loop and behind it, and over calls. */
EXPORT int loop(int count) {
    int sum = 0;
    for (int i = 0; i < count; i++) {
        sum += near_page[i & 1023] * total;
        if (sum & 64)
            sum += twice(far_page[i & 7]);
#ifdef LOOP
        total ^= i + 1;
#else
        total ^= i;
#endif
    }
    return sum + total + records[3].first;
}

/* One bit that is looked at. */
EXPORT int bit(unsigned value) {
#ifdef BIT
    if (value & 0x20)
#else
    if (value & 0x10)
#endif
        return twice(3);
    return thrice(4);
}

/* What others see in order. */
EXPORT int atomic(int value) {
#ifdef ATOMIC
    return __atomic_fetch_add(&far_page[9], value, __ATOMIC_SEQ_CST);
#else
    return __atomic_fetch_add(&far_page[8], value, __ATOMIC_SEQ_CST);
#endif
}

/* A pointer in data. */
EXPORT int (*pointers[])(int) = {twice, thrice};
EXPORT int through(int which, int value) { return pointers[which & 1](value); }
