//! What runs in the target for a moment.

use std::ptr::addr_of;

// `call` calls a function with up to four arguments, and asks what the last error was;
// `store` makes one store of 2, 4 or 8 bytes. Both take the address of what they are told, use
// nothing of where they are, and keep what a function has to keep. Both first take the word that
// allows it: a thread may come late, when nobody waits for it any more, and then does nothing.
std::arch::global_asm!(
    ".globl invivo_call",
    "invivo_call:",
    "push rbx",
    "sub rsp, 0x20",
    "mov rbx, rcx",
    "xor eax, eax",
    "xchg [rbx+0x40], rax",
    "test rax, rax",
    "je 2f",
    "mov rcx, [rbx+0x10]",
    "mov rdx, [rbx+0x18]",
    "mov r8, [rbx+0x20]",
    "mov r9, [rbx+0x28]",
    "call qword ptr [rbx]",
    "mov [rbx+0x30], rax",
    "call qword ptr [rbx+8]",
    "mov [rbx+0x38], rax",
    "2:",
    "xor eax, eax",
    "add rsp, 0x20",
    "pop rbx",
    "ret",
    ".globl invivo_store",
    "invivo_store:",
    "xor eax, eax",
    "xchg [rcx+0x40], rax",
    "test rax, rax",
    "je 9f",
    "mov rax, [rcx+8]",
    "mov rdx, [rcx+0x10]",
    "mov rcx, [rcx]",
    "cmp rdx, 4",
    "je 4f",
    "ja 8f",
    "mov [rcx], ax",
    "jmp 9f",
    "4:",
    "mov [rcx], eax",
    "jmp 9f",
    "8:",
    "mov [rcx], rax",
    "9:",
    "xor eax, eax",
    "ret",
    ".globl invivo_end",
    "invivo_end:",
);

unsafe extern "C" {
    static invivo_call: u8;
    static invivo_store: u8;
    static invivo_end: u8;
}

/// All of it, and where `store` begins in it; `call` is its begin.
pub(super) fn code() -> (&'static [u8], u64) {
    let (call, store, end) = (
        addr_of!(invivo_call),
        addr_of!(invivo_store),
        addr_of!(invivo_end),
    );
    let size = end as usize - call as usize;
    // SAFETY: the code lies between the two, and nobody changes it.
    let code = unsafe { std::slice::from_raw_parts(call, size) };
    (code, store as u64 - call as u64)
}
