//! A signal frame that holds a thread's true state.
//!
//! With this frame on its stack, a thread that runs `syscall; ret` returns into
//! `rt_sigreturn` and is itself again, whether or not the tool that set it on its
//! way still lives. The layout is the kernel's `struct rt_sigframe`
//! (arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h).

use libc::user_regs_struct;

use crate::ptrace::{is_interrupted, is_resumed, restart};

/// Bytes below the stack pointer that belong to the running function.
const RED_ZONE: u64 = 128;
/// `struct ucontext` as the kernel has it: flags, link, stack, sigcontext, mask.
const UCONTEXT: usize = 304;
const SIGINFO: usize = 128;
/// The return address before the `ucontext`.
const RETURN: usize = 8;
/// The XSAVE area must be aligned to this.
const XSAVE_ALIGN: u64 = 64;
/// Where software keeps its notes in the legacy area (`struct _fpx_sw_bytes`).
const NOTES: usize = 464;
const MAGIC_1: u32 = 0x4650_5853;
const MAGIC_2: u32 = 0x4650_5845;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const FLAGS: u64 = 0x7;

/// A frame, and where it must be written.
#[derive(Debug)]
pub(crate) struct SignalFrame {
    /// The stack pointer with which the injected call starts.
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
    /// Bytes before the `ucontext`.
    way_back: u64,
}

impl SignalFrame {
    /// The frame for a thread with these registers; `way_back` is what returns from the
    /// call find on the stack, one after the other, until `rt_sigreturn` is called.
    pub(crate) fn new(
        registers: &user_regs_struct,
        extended: &[u8],
        mask: u64,
        way_back: &[u64],
    ) -> Option<SignalFrame> {
        let (extended, features) = usual_state(extended)?;
        let mut registers = *registers;
        let in_call = registers.orig_rax.cast_signed() >= 0;
        if in_call && (is_resumed(&registers) || is_interrupted(&registers)) {
            restart(&mut registers);
        }
        let xsave = (extended.len() as u64).checked_add(4)?;
        let top = registers.rsp.checked_sub(RED_ZONE)?;
        let fpstate = top.checked_sub(xsave)? & !(XSAVE_ALIGN - 1);
        let size = (RETURN * way_back.len() + UCONTEXT + SIGINFO) as u64;
        // A function that is called with this stack pointer expects it 8 off 16.
        let at = (fpstate.checked_sub(size)? & !0xf).checked_sub(8)?;
        let mut bytes = Vec::with_capacity(usize::try_from(top - at).ok()?);
        let mut word = |value: u64| bytes.extend(value.to_le_bytes());
        way_back.iter().copied().for_each(&mut word);
        word(FLAGS);
        word(0);
        // No alternate stack: the kernel ignores one of size zero and keeps its own.
        (0..3).for_each(|_| word(0));
        let r = &registers;
        let general = [
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx,
            r.rdx, r.rax, r.rcx, r.rsp, r.rip, r.eflags,
        ];
        general.into_iter().for_each(&mut word);
        // cs, gs, fs, ss as four 16-bit values.
        word(r.cs & 0xffff | (r.ss & 0xffff) << 48);
        // err, trapno, oldmask, cr2
        (0..4).for_each(|_| word(0));
        word(fpstate);
        (0..8).for_each(|_| word(0));
        word(mask);
        bytes.resize(usize::try_from(fpstate - at).ok()?, 0);
        bytes.extend(extended);
        let notes = bytes.len() - extended.len() + NOTES;
        let size = u32::try_from(extended.len()).ok()?;
        bytes[notes..notes + 4].copy_from_slice(&MAGIC_1.to_le_bytes());
        bytes[notes + 4..notes + 8].copy_from_slice(&(size + 4).to_le_bytes());
        bytes[notes + 8..notes + 16].copy_from_slice(&features.to_le_bytes());
        bytes[notes + 16..notes + 20].copy_from_slice(&size.to_le_bytes());
        bytes.extend(MAGIC_2.to_le_bytes());
        Some(SignalFrame {
            at,
            bytes,
            way_back: way_back.len() as u64 * RETURN as u64,
        })
    }

    /// The stack pointer with which `rt_sigreturn` is called.
    pub(crate) fn frame_end(&self) -> u64 {
        self.at + self.way_back
    }
}

/// True if a frame with this way back lies on `stack`.
pub(crate) fn is_frame(stack: &[u8], way_back: u64) -> bool {
    let mut begin = way_back.to_le_bytes().to_vec();
    begin.extend(FLAGS.to_le_bytes());
    begin.extend([0; 8]);
    memchr::memmem::find(stack, &begin).is_some_and(|at| at % RETURN == 0)
}

/// The extended state without the matrix tiles of AMX, and the features in it; `None`
/// if the tiles are in use.
///
/// ptrace shows room for the tiles on every processor that has them, but the kernel
/// takes a frame with that room only from a process that asked for permission.
fn usual_state(extended: &[u8]) -> Option<(&[u8], u64)> {
    const TILES: u64 = 1 << 17 | 1 << 18;
    const IN_USE: usize = 512;
    let word = |at: usize| {
        Some(u64::from_le_bytes(
            extended.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    // ptrace leaves the processor's features at the start of the notes.
    let features = word(NOTES)?;
    if features & TILES == 0 {
        return Some((extended, features));
    }
    if word(IN_USE)? & TILES != 0 {
        return None;
    }
    // CPUID leaf 0xd, sub-leaf 17: where the tiles' configuration starts.
    let end = std::arch::x86_64::__cpuid_count(0xd, 17).ebx;
    Some((
        extended.get(..usize::try_from(end).ok()?)?,
        features & !TILES,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptrace::negative;

    fn registers() -> user_regs_struct {
        // SAFETY: the structure is made of integers, for which all zeros are valid.
        let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
        registers.rsp = 0x7fff_0000_1234;
        registers.rip = 0x40_1002;
        registers.orig_rax = u64::MAX;
        registers
    }

    #[test]
    fn the_frame_lies_below_the_red_zone_and_is_aligned() {
        let frame = SignalFrame::new(&registers(), &[0; 832], 0, &[0x1000]).unwrap();
        assert_eq!(frame.at % 16, 8);
        let end = frame.at + frame.bytes.len() as u64;
        assert!(end <= 0x7fff_0000_1234 - 128);
        let fpstate = u64::from_le_bytes(frame.bytes[232..240].try_into().unwrap());
        assert_eq!(fpstate % 64, 0);
        assert_eq!(fpstate + 832 + 4, end);
    }

    #[test]
    fn a_frame_on_a_stack_is_found_by_its_way_back() {
        let frame = SignalFrame::new(&registers(), &[0; 832], 0, &[0x1000]).unwrap();
        let stack = [vec![1; 24], frame.bytes].concat();
        assert!(is_frame(&stack, 0x1000));
        assert!(!is_frame(&stack, 0x1008));
        assert!(!is_frame(&stack[32..], 0x1000));
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let mut registers = registers();
        registers.orig_rax = 232;
        registers.rax = negative(libc::EINTR);
        let frame = SignalFrame::new(&registers, &[0; 832], 0, &[0x1000]).unwrap();
        let word = |at: usize| u64::from_le_bytes(frame.bytes[at..at + 8].try_into().unwrap());
        // rax and rip within the frame: 8 + 40 + 13 and 16 words.
        assert_eq!((word(48 + 13 * 8), word(48 + 16 * 8)), (232, 0x40_1000));
    }

    #[test]
    fn close_is_not_made_again() {
        let mut registers = registers();
        registers.orig_rax = libc::SYS_close.cast_unsigned();
        registers.rax = negative(libc::EINTR);
        let frame = SignalFrame::new(&registers, &[0; 832], 0, &[0x1000]).unwrap();
        let word = |at: usize| u64::from_le_bytes(frame.bytes[at..at + 8].try_into().unwrap());
        let kept = (word(48 + 13 * 8), word(48 + 16 * 8));
        assert_eq!(kept, (negative(libc::EINTR), 0x40_1002));
    }
}
