// Maps the file that it is given as an image is mapped, and shows another build id in its own copy of the page, as anybody can.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char byte;
    int fd = argc == 2 ? open(argv[1], O_RDONLY) : -1;
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    char *note = page == MAP_FAILED ? NULL : memmem(page, 4096, "GNU\0", 4);
    // The first note of that name may be another one: all that follows is changed.
    if (note == NULL) return 9;
    for (char *at = note; at != NULL; at = memmem(at, page + 4096 - at, "GNU\0", 4)) {
        at += 4;
        for (int i = 0; i < 20 && at + i < page + 4096; i++) at[i] ^= 0x5a;
    }
    if (mprotect(page, 4096, PROT_READ) != 0) return 9;
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) == 1) { }
    return 0;
}
