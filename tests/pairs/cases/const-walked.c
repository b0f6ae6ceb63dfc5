//# refuse R-CONST body
//# near accept
// Nothing but the bounds of the section names its elements: which one changed no code tells.
#include <stdio.h>
#include <string.h>
struct limit {
    char name[12];
    int most;
};
#define LIMIT(what, most) static const struct limit what __attribute__((section("limits"), used, aligned(16))) = {#what, most}
LIMIT(head, 100);
#ifdef FIXED
LIMIT(body, 1000);
#else
LIMIT(body, 1000000);
#endif
LIMIT(last, 7);
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
