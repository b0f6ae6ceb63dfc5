//# refuse R-SYMBOLS is_low
//# near accept

// Assembly without type and size is compared as well where the fix brings the program's first table of addresses, a section of its own.
// Near: the table alone.
#include <stdio.h>

#ifdef FIXED
#define MOST "16"
#else
#define MOST "64"
#endif

__asm__(".text\n.globl is_low\nis_low: cmp $" MOST ", %edi\nsetb %al\nmovzbl %al, %eax\nret\n");
extern int is_low(int n);

#if defined FIXED || defined NEAR
static const char *const names[] = {"no", "yes", "perhaps"};
__attribute__((noinline)) const char *name(int i) { return names[i % 3]; }
#else
__attribute__((noinline)) const char *name(int i) { return i ? "yes" : "no"; }
#endif

int main(int argc, char **argv) {
    (void)argv;
    puts(name(is_low(argc)));
    return 0;
}
