//# compiler clang
//# accept
//# apart
//# hooked put
//# near accept
//# near together
//# near hooked put
// `relay` passes `room` in both builds, so that `put` is entered by code that stays. A frame inside the old `serve` passes chance:
// the fix may go live only while there is none.
#include <stdio.h>
#include <string.h>
#include <unistd.h>
char store[2][64];
volatile int mode;
__attribute__((noinline)) int put(char *to, const char *from, unsigned long room) {
#ifdef FIXED
    unsigned long length = strlen(from);
    if (length >= room)
        length = room - 1;
    memcpy(to, from, length);
    to[length] = 0;
#elif defined NEAR
    strncpy(to, from, 64);
#else
    strcpy(to, from);
#endif
    return mode;
}
int (*volatile relay)(char *, const char *, unsigned long) = put;
__attribute__((noinline)) static void serve(char **words) {
    for (int n = mode; n >= 0; n++) {
        put(store[0], words[0], 64);
#if defined FIXED || defined NEAR
        mode++;
#endif
        put(store[1], words[1], 32);
        printf("%s %s\n", store[0], store[1]);
        usleep(200000);
    }
}
int main(int count, char **words) {
    relay(store[0], words[0], 64);
    if (count > 1)
        serve(words);
}
