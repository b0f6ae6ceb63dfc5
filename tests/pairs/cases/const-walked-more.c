//# refuse R-CONST tail
//# near accept
// The new element is in front, where the section begins: a copy of it alone would be taken for the whole section.
#include <stdio.h>
#include <string.h>
struct limit {
    char name[12];
    int most;
};
#define LIMIT(what, most) static const struct limit what __attribute__((section("limits"), used, aligned(16))) = {#what, most}
LIMIT(head, 100);
LIMIT(body, 1000);
#ifdef FIXED
LIMIT(tail, 5);
#endif
#ifdef NEAR
// In a section of its own, which nothing walks through.
static const struct limit spare __attribute__((section("spares"), used)) = {"spare", 1};
#endif
extern const struct limit __start_limits[], __stop_limits[];
__attribute__((noinline)) int most(const char *name) {
    for (const struct limit *l = __start_limits; l < __stop_limits; l++)
        if (!strcmp(l->name, name))
            return l->most;
    return -1;
}
int main(void) {
#if defined FIXED || defined NEAR
    puts("new");
#endif
    return printf("%d\n", most("body")) < 0;
}
