//# compiler clang
//# accept
//# unhooked put
//# near accept
//# near hooked put
// Nothing uses `room` in the base, and clang leaves it out of the calls: what is in its register is chance.
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static char store[2][64];
static volatile int mode;
__attribute__((noinline)) static int put(char *to, const char *from, unsigned long room) {
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
__attribute__((noinline)) static void serve(char **words) {
    for (;;) {
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
    (void)count;
    serve(words);
}
