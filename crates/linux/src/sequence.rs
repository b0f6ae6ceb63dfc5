//! Restartable sequences (rseq): code that the kernel leads to its own undoing when its thread was
//! interrupted inside.
//!
//! Whether a thread is inside is told by its instruction pointer alone. One that was led elsewhere
//! in the middle and brought back would end its sequence as if nothing had come in between.

use invivo_image::LiveAddr;
use nix::errno::Errno;

use crate::memory::Memory;
use crate::ptrace::Standing;

/// `PTRACE_GET_RSEQ_CONFIGURATION`.
const GET_CONFIGURATION: libc::c_uint = 0x420f;
/// Where `struct rseq` holds the address of the sequence (include/uapi/linux/rseq.h).
const SEQUENCE: u64 = 8;

/// `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Debug, Default)]
struct Configuration {
    area: u64,
    size: u32,
    signature: u32,
    flags: u32,
    pad: u32,
}

/// True if a thread that stands at `rip` is inside a restartable sequence.
pub(crate) fn is_inside(thread: &Standing, memory: &Memory, rip: u64) -> bool {
    let Ok(area) = area(thread) else {
        // Kernels before 5.13 do not tell, and programs that have such an area are newer.
        return false;
    };
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read(LiveAddr(at), &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    let inside = || {
        let sequence = word(area.checked_add(SEQUENCE)?).filter(|at| *at != 0)?;
        // Version and flags come first, then where it begins and how long it is.
        let start = word(sequence.checked_add(8)?)?;
        let size = word(sequence.checked_add(16)?)?;
        Some(rip.wrapping_sub(start) < size)
    };
    area != 0 && inside().unwrap_or(false)
}

/// Where the thread's `struct rseq` is; 0 where it has none.
fn area(thread: &Standing) -> Result<u64, Errno> {
    let mut told = Configuration::default();
    // SAFETY: the kernel writes at most as many bytes as the third argument says to the fourth,
    // which is a structure of that size, made of integers.
    let result = unsafe {
        libc::ptrace(
            GET_CONFIGURATION,
            thread.tid(),
            size_of::<Configuration>(),
            &raw mut told,
        )
    };
    Errno::result(result)?;
    Ok(told.area)
}
