//! The state of a thread that stands: registers, extended state, signal mask.

use std::sync::OnceLock;

use invivo_apply::TargetError;
use libc::user_regs_struct;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::error::traced;
use crate::ptrace::Standing;

/// `PTRACE_GETSIGMASK`, `PTRACE_SETSIGMASK`.
const GET_SIGNAL_MASK: libc::c_uint = 0x420a;
const SET_SIGNAL_MASK: libc::c_uint = 0x420b;
/// `PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG`.
const GET_DISPATCH: libc::c_uint = 0x4211;
/// `NT_X86_XSTATE`.
const XSTATE: usize = 0x202;
/// More than the extended state of any processor.
const LARGEST_XSTATE: usize = 64 << 10;

/// Bytes that hold all states of this processor. Asked once: a virtual machine takes a
/// while to answer.
pub(crate) fn size_of_extended_state() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // CPUID leaf 0xd.
        let size = std::arch::x86_64::__cpuid_count(0xd, 0).ecx;
        let size = usize::try_from(size).map_or(LARGEST_XSTATE, |size| size + 64);
        size.min(LARGEST_XSTATE)
    })
}

impl Standing {
    pub(crate) fn registers(&self) -> Result<user_regs_struct, TargetError> {
        ptrace::getregs(Pid::from_raw(self.tid()))
            .map_err(|e| traced(self.pid(), "read the registers of", e))
    }

    pub(crate) fn set_registers(&self, registers: &user_regs_struct) -> Result<(), TargetError> {
        ptrace::setregs(Pid::from_raw(self.tid()), *registers)
            .map_err(|e| traced(self.pid(), "set the registers of", e))
    }

    /// Writes a word of the process's memory, wherever it is.
    pub(crate) fn poke(&self, at: u64, word: u64) -> Result<(), Errno> {
        let place = std::ptr::without_provenance_mut(usize::try_from(at).unwrap_or(0));
        ptrace::write(Pid::from_raw(self.tid()), place, word.cast_signed())
    }

    /// The extended state, in the layout of XSAVE.
    pub(crate) fn extended_state(&self) -> Result<Vec<u8>, TargetError> {
        // A thread is held meanwhile, so no more memory is touched than that.
        let mut bytes = vec![0u8; size_of_extended_state()];
        let mut vector = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: the kernel writes at most `iov_len` bytes to `iov_base`, which is
        // `bytes`, and updates `iov_len`; both outlive the call.
        let result =
            unsafe { libc::ptrace(libc::PTRACE_GETREGSET, self.tid(), XSTATE, &raw mut vector) };
        Errno::result(result).map_err(|e| traced(self.pid(), "read the extended state of", e))?;
        bytes.truncate(vector.iov_len);
        Ok(bytes)
    }

    /// True if the program has itself told of its own system calls
    /// (`Documentation/admin-guide/syscall-user-dispatch.rst`). Kernels before 6.4 do not say.
    pub(crate) fn dispatches_calls(&self) -> bool {
        // Mode, selector, offset, length.
        let mut config = [0u64; 4];
        // SAFETY: the kernel writes as many bytes as the third argument says to the fourth, which
        // is of that size.
        let result = unsafe {
            libc::ptrace(
                GET_DISPATCH,
                self.tid(),
                size_of_val(&config),
                &raw mut config,
            )
        };
        result == 0 && config[0] != 0
    }

    pub(crate) fn signal_mask(&self) -> Result<u64, TargetError> {
        let mut mask = 0u64;
        // SAFETY: the kernel writes the eight bytes that the third argument names to
        // the fourth, which is a `u64`.
        let result =
            unsafe { libc::ptrace(GET_SIGNAL_MASK, self.tid(), size_of::<u64>(), &raw mut mask) };
        Errno::result(result).map_err(|e| traced(self.pid(), "read the signal mask of", e))?;
        Ok(mask)
    }

    pub(crate) fn set_signal_mask(&self, mask: u64) -> Result<(), TargetError> {
        // SAFETY: the kernel reads the eight bytes that the third argument names from
        // the fourth, which is a `u64`.
        let result = unsafe {
            libc::ptrace(
                SET_SIGNAL_MASK,
                self.tid(),
                size_of::<u64>(),
                &raw const mask,
            )
        };
        Errno::result(result).map_err(|e| traced(self.pid(), "set the signal mask of", e))?;
        Ok(())
    }
}
