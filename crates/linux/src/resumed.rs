//! Which call a thread makes that the kernel has resumed.
//!
//! A thread that was stopped in a wait with a time-out goes on in `restart_syscall`, and only the
//! kernel knows with what. Once it has forgotten, the call ends with EINTR: after a sleep in a
//! function that was called in the thread, or a return from a signal. So the call is named again by
//! what made it, and can be made anew.

use invivo_image::LiveAddr;
use libc::user_regs_struct;

use crate::memory::Memory;

/// The calls that the kernel resumes so.
const RESUMED: [i64; 4] = [
    libc::SYS_poll,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];

/// Registers whose call is `restart_syscall` get the number of the call that it resumes, where the
/// code tells: who makes it by `syscall(2)` has the number in a register that is overwritten. Should the kernel still know, that changes nothing: it asks whether there is a call, not which.
pub(crate) fn name_resumed(memory: &Memory, registers: &mut user_regs_struct) {
    if registers.orig_rax != libc::SYS_restart_syscall.cast_unsigned() {
        return;
    }
    let mut code = [0; 7];
    let at = LiveAddr(registers.rip.wrapping_sub(code.len() as u64));
    if memory.read(at, &mut code).is_ok()
        && let Some(number) = number_in(code)
    {
        registers.orig_rax = number;
    }
}

/// The number of one of those calls, if these bytes put it into `eax` (`mov eax, imm32`) and make it
/// (`syscall`), as the wrappers of the GNU C library do.
fn number_in(code: [u8; 7]) -> Option<u64> {
    let [0xb8, number @ .., 0x0f, 0x05] = code else {
        return None;
    };
    let number = i64::from(u32::from_le_bytes(number));
    RESUMED.contains(&number).then_some(number.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wait_that_the_code_names_is_named() {
        let poll = [0xb8, 7, 0, 0, 0, 0x0f, 0x05];
        assert_eq!(number_in(poll), Some(7));
        let read = [0xb8, 0, 0, 0, 0, 0x0f, 0x05];
        assert_eq!(number_in(read), None);
        let by_register = [0x48, 0x89, 0xf8, 0x0f, 0x05, 0x0f, 0x05];
        assert_eq!(number_in(by_register), None);
    }
}
