// Locks the pidfd of the process whose number it is given, which anybody can, until its input ends.
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char byte;
    int fd = argc == 2 ? syscall(SYS_pidfd_open, atoi(argv[1]), 0) : -1;
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0) {
        puts("cannot lock");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) == 1) { }
    return 0;
}
