# A 32-bit program that says that it is ready and waits for its input to end.
.globl _start
_start:
    movl $4, %eax
    movl $1, %ebx
    movl $ready, %ecx
    movl $6, %edx
    int $0x80
wait:
    movl $3, %eax
    xorl %ebx, %ebx
    movl $byte, %ecx
    movl $1, %edx
    int $0x80
    testl %eax, %eax
    jg wait
    movl $1, %eax
    xorl %ebx, %ebx
    int $0x80
.data
ready: .ascii "ready\n"
byte: .byte 0
