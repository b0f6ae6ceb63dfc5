// A fix that must be refused, in a program whose names attack who shows them.
#include <stdio.h>
#include <stdlib.h>

struct session {
    int id;
#ifdef FIXED
    long limit;
#endif
    char name[16];
};

struct session *live;

// Real symbols: the assembler takes any name between quotes.
int evil(int x) __asm__("\"<img src=x onerror=alert(1)>\"");
int closing(int x) __asm__("\"</script></style><script>alert(2)</script>\"");
int backwards(int x) __asm__("\"pay\u202eresu\"");

__attribute__((noinline)) int evil(int x) {
#ifdef FIXED
    if (x > 4096)
        return -1;
#endif
    return printf("%d </table><script>alert(3)</script>\n", x);
}

__attribute__((noinline)) int closing(int x) {
#ifdef FIXED
    x &= 0xff;
#endif
    return evil(x) * 3;
}

__attribute__((noinline)) int backwards(int x) {
#ifdef FIXED
    x += 7;
#endif
    return closing(x) - x;
}

#ifdef FIXED
__attribute__((noinline)) int checked(int x) { return x < 0 ? 0 : backwards(x); }
#else
__attribute__((noinline)) int unchecked(int x) { return backwards(x) + 1; }
#endif

__attribute__((noinline)) const char *greeting(void) {
#ifdef FIXED
    return "welcome back";
#else
    return "welcome";
#endif
}

__attribute__((noinline)) int serve(int count) {
    live = calloc(1, sizeof *live);
    live->id = count;
#ifdef FIXED
    live->limit = 10;
    return checked(count) + live->name[0];
#else
    return unchecked(count) + live->name[0];
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    puts(greeting());
    return serve(argc);
}
