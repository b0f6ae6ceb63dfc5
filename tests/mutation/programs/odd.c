/* What is odd: a resolver, code with data in its midst, code without a size, constants that
 * only data leads to, tables that are guarded from afar. */
#include <stdio.h>
#include <string.h>
#include <stdlib.h>

#define APART __attribute__((noinline, noclone))

/* Not all of its bytes are instructions (0x06 is none), and one refers to a constant. */
__asm__(".text\n"
        ".globl mixed\n"
        ".type mixed, @function\n"
        "mixed:\n"
        "  lea mixed_text(%rip), %rax\n"
        "  jmp 1f\n"
        "  .byte 0x06, 0x07, 0x0e, 0x16\n"
        "1: add $1, %rax\n"
        "  ret\n"
        ".size mixed, .-mixed\n"
        ".section .rodata\n"
        "mixed_text: .string \"?read only by code that is not all code\"\n"
        ".text\n");
const char *mixed(void);

/* A routine of assembly that forgot its size. */
__asm__(".text\n"
        ".globl unsized_add\n"
        ".type unsized_add, @function\n"
        "unsized_add:\n"
        "  lea 7(%rdi,%rsi), %eax\n"
        "  xor unsized_mask(%rip), %eax\n"
        "  ret\n"
        ".section .rodata\n"
        ".balign 4\n"
        "unsized_mask: .long 0x1234567\n"
        ".text\n");
int unsized_add(long, long);

struct entry { const char *key; const char *value; const struct entry *next; };
static const struct entry third = {"three", "only a constant leads here", 0};
static const struct entry second = {"two", "as here", &third};
static const struct entry first = {"one", "a constant leads here", &second};
const struct entry *table = &first;

static int state[4] = {4, 3, 2, 1};
static char name[32] = "a name that is written to";
const int exported_primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};

static void __attribute__((constructor)) begin(void) { state[0] += 2; }
static void __attribute__((destructor)) end(void) { state[1] -= 2; }

#ifdef __GLIBC__
static int slow_way(int x) { return x * 3 + 1; }
static int quick_way(int x) { return (x << 1) + x + 1; }
static int (*choose(void))(int) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? quick_way : slow_way;
}
int chosen(int) __attribute__((ifunc("choose")));
#else
int chosen(int x) { return x * 3 + 1; }
#endif

APART int far_guard(unsigned x, int y) {
    if (x > 6)
        return -1;
    y = y * 31 + (int)strlen(name);
    name[y & 15] = (char)y;
    for (int i = 0; i < 4; ++i)
        y ^= state[i] << i;
    switch (x) {
    case 0: return y + 12;
    case 1: return puts("one") + y;
    case 2: return y * y;
    case 3: return puts("three") - y;
    case 4: return y / 3;
    case 5: return y >> 2;
    default: return y ^ 0x55;
    }
}

APART double weigh(const double *values, int count) {
    static const double weights[5] = {0.5, 0.25, 0.125, 0.0625, 0.03125};
    double sum = 1e-9;
    for (int at = 0; at < count; ++at)
        sum += values[at] * weights[at % 5] - (at & 1 ? 2.75 : -3.5);
    return sum;
}

APART void greet(char *into) {
    /* Copied in pieces of sixteen bytes. */
    static const char text[] = "a text that is copied with vector instructions, 64 bytes long..";
    memcpy(into, text, sizeof text);
    const char *help[] = {"usage: odd", "words", "more words", into};
    for (unsigned at = 0; at < 4; ++at)
        puts(help[at]);
}

int main(int count, char **words) {
    double values[3] = {count, 1, 2};
    char into[80];
    int sum = far_guard((unsigned)count, count) + chosen(count) + unsized_add(count, 2);
    for (const struct entry *at = table; at; at = at->next)
        if (count > 1 && !strcmp(at->key, words[1]))
            puts(at->value);
    greet(into);
    printf("%d %f %s\n", sum, weigh(values, 3), mixed());
    return sum & exported_primes[count & 7];
}
