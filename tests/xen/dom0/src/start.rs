//! The entry, what Xen's loader wants to know, and the functions that compilers call.

use core::arch::global_asm;

global_asm!(
    r#"
    .macro note_text type, text
        .balign 4
        .long 4, 8f - 7f, \type
        .asciz "Xen"
    7:  .asciz "\text"
    8:  .balign 4
    .endm
    .macro note_number type, value
        .balign 4
        .long 4, 8, \type
        .asciz "Xen"
        .quad \value
    .endm

    .section .notes.xen, "a", @note
    note_number 1, start
    note_number 2, hypercall_page
    note_number 3, 0xffffffff80000000
    note_number 4, 0xffffffff80000000
    note_text 5, "xen-3.0"
    note_text 6, "invivo"
    note_text 8, "generic"
    note_text 9, "yes"

    .section .text.start, "ax", @progbits
    .globl start
start:
    lea stack_top(%rip), %rsp
    xor %ebp, %ebp
    mov %rsi, %rdi
    call kernel
    ud2

    // Xen fills it with stubs; this kernel makes its calls itself.
    .balign 4096
hypercall_page:
    .skip 4096

    .section .bss.stack, "aw", @nobits
    .balign 16
    .skip 65536
stack_top:
    .text
"#,
    options(att_syntax)
);

global_asm!(
    r#"
    .text
    .globl memcpy, memmove, memset, memcmp, bcmp
memcpy:
    mov %rdi, %rax
    mov %rdx, %rcx
    rep movsb
    ret
memmove:
    mov %rdi, %rax
    mov %rdx, %rcx
    cmp %rsi, %rdi
    jbe 1f
    lea -1(%rdi, %rdx), %rdi
    lea -1(%rsi, %rdx), %rsi
    std
    rep movsb
    cld
    ret
1:  rep movsb
    ret
memset:
    mov %rdi, %r9
    mov %esi, %eax
    mov %rdx, %rcx
    rep stosb
    mov %r9, %rax
    ret
bcmp:
memcmp:
    xor %eax, %eax
    mov %rdx, %rcx
    test %rcx, %rcx
    jz 2f
    repe cmpsb
    je 2f
    movzbl -1(%rdi), %eax
    movzbl -1(%rsi), %ecx
    sub %ecx, %eax
2:  ret

    // The libraries of the ordinary target name them; a panic ends this kernel before.
    .globl rust_eh_personality, _Unwind_Resume
rust_eh_personality:
_Unwind_Resume:
    ud2
"#,
    options(att_syntax)
);
