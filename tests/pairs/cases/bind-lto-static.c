//# compiler clang
//# flags -flto -fuse-ld=lld
//# accept
//# note R-STATIC cache
//# hot main | note
//# near accept
//# near note R-STATIC noted

// Link-time optimization numbers statics of one name, but for the first: the fix brings one that takes the name without a number,
// and the running one is known again by its user, which is not changed. Near: the new one has a name of its own.
int small(const char *text);
int note(const char *text);

int main(int argc, char **argv) {
    (void)argc;
    return note(argv[0]) + small(argv[0]);
}
//# part new.c
#include <stdlib.h>
#include <string.h>

#if defined(FIXED)
static char *cache;
#elif defined(NEAR)
static char *noted;
#define cache noted
#endif

__attribute__((noinline)) int note(const char *text) {
#if defined(FIXED) || defined(NEAR)
    if (!cache)
        cache = malloc(4096);
    if (strlen(text) < 4096)
        strcpy(cache, text);
    return cache[0];
#else
    return text[0];
#endif
}
//# part small.c
#include <stdio.h>
#include <stdlib.h>

static char *cache;

__attribute__((noinline)) int small(const char *text) {
    if (!cache)
        cache = malloc(16);
    snprintf(cache, 16, "%s", text);
    return cache[0];
}
