//# accept
//# unhooked parse
//# near accept
//# near hooked parse

// The function frees what it was given, and now its caller does: an old frame of the caller that met the new function
// would leave it for good, and the other way round it would be freed twice. Near: both free what they freed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
__attribute__((noinline)) static int parse(char *text, int n) {
    int found = 0;
    for (char *at = text; *at; at++)
        found += *at == n;
#ifndef FIXED
    free(text);
#endif
#ifdef NEAR
    return found > 1000 ? 1000 : found;
#else
    return found;
#endif
}
__attribute__((noinline)) static int serve(const char *word, volatile int *go) {
    int all = 0;
    for (int i = 0; *go; i++) {
        char *text = strdup(word);
        int found = parse(text, 'a' + i % 26);
#ifdef FIXED
        free(text);
#endif
#ifdef NEAR
        if (all > 100000000)
            all = 0;
#endif
        all += found;
    }
    return all;
}
int main(int count, char **words) {
    volatile int go = count;
    return printf("%d\n", serve(words[0], &go)) < 0;
}
