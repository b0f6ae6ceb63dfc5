// Traces the process whose number it is given, as a debugger would, until its input ends.
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char byte;
    if (argc != 2 || ptrace(PTRACE_SEIZE, atoi(argv[1]), 0, 0) != 0) {
        puts("cannot trace");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) == 1) { }
    return 0;
}
