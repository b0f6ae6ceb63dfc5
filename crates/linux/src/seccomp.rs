//! Filters of system calls (seccomp): what becomes of a call that a thread makes for us.
//!
//! The kernel shows a thread's filters to root while the thread stands; they are run here on the
//! very call, before it is made. What they let pass needs nothing more. For what they answer with an
//! error they can be suspended for the moment: should this program die before the call
//! is made, it fails, and nothing else happens. What they end the thread for is never tried.

use std::sync::OnceLock;

use invivo_apply::TargetError;
use libc::user_regs_struct;
use nix::errno::Errno;

use crate::bpf::{Instruction, run};
use crate::error::traced;
use crate::gadgets::Gadgets;
use crate::proc_file::Status;
use crate::ptrace::Standing;

/// `PTRACE_SECCOMP_GET_FILTER`.
const GET_FILTER: libc::c_uint = 0x420c;
/// More filters than a thread can have.
const MOST: usize = 4096;
/// `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;
/// The part of a filter's answer that says what to do (`SECCOMP_RET_ACTION_FULL`).
const ACTION: u32 = 0xffff_0000;
/// `SECCOMP_RET_ALLOW`, `SECCOMP_RET_LOG`, `SECCOMP_RET_TRACE`, `SECCOMP_RET_ERRNO`.
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const TRACE: u32 = 0x7ff0_0000;
const ERRNO: u32 = 0x0005_0000;

/// A system call, as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: i64,
    /// The first byte behind the instruction that makes it.
    pub(crate) place: u64,
    pub(crate) arguments: [u64; 6],
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is made.
    Made,
    /// It fails, and nothing else happens.
    Fails,
    /// The thread is ended, gets a signal, or somebody else is asked; or that is not known.
    Harms,
}

/// All filters of one thread.
#[derive(Clone, Debug)]
pub(crate) struct Filters(Vec<Vec<Instruction>>);

impl Filters {
    /// The filters of a thread that stands; `None` if it has none.
    pub(crate) fn of(pid: i32, tid: i32) -> Result<Option<Filters>, TargetError> {
        let mut all = Vec::new();
        while all.len() < MOST {
            match filter(tid, all.len()) {
                Ok(program) => all.push(program),
                // It has no filter at all, or no other one.
                Err(Errno::EINVAL) if all.is_empty() => return Ok(None),
                Err(Errno::ENOENT) => return Ok((!all.is_empty()).then_some(Filters(all))),
                Err(Errno::EACCES | Errno::EPERM) => return Err(unreadable(pid)),
                Err(Errno::ESRCH) => return Err(traced(pid, "read a filter of", Errno::ESRCH)),
                Err(error) => {
                    return Err(TargetError::Unsupported(format!(
                        "the filter of system calls (seccomp) of thread {tid} of process {pid} \
                         cannot be read: {error}"
                    )));
                }
            }
        }
        Ok(Some(Filters(all)))
    }

    /// What becomes of `call`: the strictest answer of all filters, as in the kernel.
    pub(crate) fn judge(&self, call: &Call) -> Verdict {
        let mut data = Vec::with_capacity(64);
        // The number is an `int`; what is above is no part of it.
        data.extend(&call.number.to_le_bytes()[..4]);
        data.extend(ARCHITECTURE.to_le_bytes());
        data.extend(call.place.to_le_bytes());
        data.extend(call.arguments.iter().flat_map(|word| word.to_le_bytes()));
        let mut strictest = Verdict::Made;
        for program in &self.0 {
            let verdict = match run(program, &data).map(|answer| answer & ACTION) {
                Some(ALLOW | LOG) => Verdict::Made,
                Some(ERRNO | TRACE) => Verdict::Fails,
                _ => Verdict::Harms,
            };
            strictest = match (strictest, verdict) {
                (Verdict::Harms, _) | (_, Verdict::Harms) => Verdict::Harms,
                (Verdict::Made, Verdict::Made) => Verdict::Made,
                _ => Verdict::Fails,
            };
        }
        strictest
    }
}

impl Filters {
    /// True if the filters must be suspended while `thread`, which they belong to, makes a
    /// call for us.
    ///
    /// # Errors
    /// When the call could harm the thread, or its way back, or what would undo it.
    pub(crate) fn permit(
        &self,
        thread: &Standing,
        gadgets: &Gadgets,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<bool, TargetError> {
        let call = |number, place| Call {
            number,
            place,
            arguments,
        };
        let back = call(libc::SYS_rt_sigreturn, gadgets.behind_the_return());
        if self.judge(&back) != Verdict::Made {
            return Err(forbidden(thread, &back));
        }
        let undo = call(libc::SYS_munmap, gadgets.behind_a_call());
        if number == libc::SYS_mmap && self.judge(&undo) == Verdict::Harms {
            return Err(forbidden(thread, &undo));
        }
        let call = call(number, gadgets.behind_a_call());
        match self.judge(&call) {
            Verdict::Made => Ok(false),
            Verdict::Fails => Ok(true),
            Verdict::Harms => Err(forbidden(thread, &call)),
        }
    }

    /// What becomes of a thread with these registers that leaves out the call which it is about to make:
    /// the filters are asked then about a call that there is not.
    pub(crate) fn judge_none(&self, registers: &user_regs_struct) -> Verdict {
        let r = registers;
        let none = Call {
            number: -1,
            place: r.rip,
            arguments: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9],
        };
        self.judge(&none)
    }

    /// `Ok` if a function of the target may be called that takes a lock and makes memory. The
    /// filters judge it as they judge the program's own code.
    ///
    /// # Errors
    /// When a call that it may make is forbidden.
    pub(crate) fn permit_function(
        &self,
        thread: &Standing,
        gadgets: &Gadgets,
        [first, second]: [u64; 2],
    ) -> Result<(), TargetError> {
        const MAPPED: u64 = 1 << 20;
        let anonymous = u64::from((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).cast_unsigned());
        let open = u64::from((libc::PROT_READ | libc::PROT_WRITE).cast_unsigned());
        let wait = u64::from((libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG).cast_unsigned());
        let wake = u64::from((libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG).cast_unsigned());
        let place = gadgets.behind_a_call();
        let calls = [
            (libc::SYS_futex, [second, wait, 2, 0, 0, 0]),
            (libc::SYS_futex, [second, wake, 1, 0, 0, 0]),
            (libc::SYS_brk, [0; 6]),
            (libc::SYS_mmap, [0, MAPPED, open, anonymous, u64::MAX, 0]),
            (libc::SYS_munmap, [second, MAPPED, 0, 0, 0, 0]),
            (libc::SYS_mprotect, [second, MAPPED, open, 0, 0, 0]),
            (libc::SYS_rt_sigreturn, [first, second, 0, 0, 0, 0]),
        ];
        for (number, arguments) in calls {
            let call = Call {
                number,
                place,
                arguments,
            };
            if self.judge(&call) != Verdict::Made {
                return Err(forbidden(thread, &call));
            }
        }
        Ok(())
    }
}

/// Why a thread cannot make a call for us: the call, as `strace` would show it.
fn forbidden(thread: &Standing, call: &Call) -> TargetError {
    let (name, arguments) = match call.number {
        libc::SYS_mmap => ("mmap", 6),
        libc::SYS_munmap => ("munmap", 2),
        libc::SYS_mremap => ("mremap", 5),
        libc::SYS_futex => ("futex", 4),
        libc::SYS_brk => ("brk", 1),
        libc::SYS_mprotect => ("mprotect", 3),
        _ => ("rt_sigreturn", 0),
    };
    let arguments: Vec<String> = call.arguments[..arguments]
        .iter()
        .map(|argument| format!("{argument:#x}"))
        .collect();
    TargetError::Unsupported(format!(
        "thread {} of process {} filters its system calls (seccomp), and the filter could end it \
         for {name}({})",
        thread.tid(),
        thread.pid(),
        arguments.join(", ")
    ))
}

/// What keeps an ordinary user from knowing what a filter allows.
pub(crate) fn unreadable(pid: i32) -> TargetError {
    TargetError::NotCapable {
        what: format!(
            "see what the filter of process {pid}, which filters its system calls (seccomp), allows"
        ),
        capability: "CAP_SYS_ADMIN",
    }
}

/// One filter as it was installed.
fn filter(tid: i32, number: usize) -> Result<Vec<Instruction>, Errno> {
    // SAFETY: without a buffer the kernel writes nothing and tells how many instructions there are.
    let size =
        unsafe { libc::ptrace(GET_FILTER, tid, number, std::ptr::null_mut::<Instruction>()) };
    let size = usize::try_from(Errno::result(size)?).map_err(|_| Errno::EINVAL)?;
    let mut program = vec![Instruction::default(); size];
    // SAFETY: the filter of a standing thread does not change, so the kernel writes as many
    // instructions as it told, which are `struct sock_filter` as `Instruction` is.
    let read = unsafe { libc::ptrace(GET_FILTER, tid, number, program.as_mut_ptr()) };
    Errno::result(read)?;
    Ok(program)
}

/// True if this program may see the filters of others (`CAP_SYS_ADMIN`). Looked up once, and
/// before a thread is held: that takes longer than all else about filters.
pub(crate) fn can_be_read() -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let own = Status::own();
        let capable = own.bits("CapEff:").unwrap_or(0) & SYS_ADMIN != 0;
        // The kernel shows nothing to whom it filters.
        capable && own.field("Seccomp:").is_none_or(|mode| mode == "0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(answers: &[u32]) -> Filters {
        let ret = |answer: &u32| {
            vec![Instruction {
                code: 0x06,
                value: *answer,
                ..Instruction::default()
            }]
        };
        Filters(answers.iter().map(ret).collect())
    }

    #[test]
    fn the_strictest_answer_counts() {
        let call = Call {
            number: 9,
            place: 0,
            arguments: [0; 6],
        };
        let judged = |answers: &[u32]| filters(answers).judge(&call);
        assert_eq!(judged(&[ALLOW, LOG]), Verdict::Made);
        assert_eq!(judged(&[ALLOW, ERRNO | 1]), Verdict::Fails);
        assert_eq!(judged(&[0, ALLOW]), Verdict::Harms);
        // SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF, SECCOMP_RET_KILL_PROCESS, and none of them.
        for harm in [0x0003_0000, 0x7fc0_0000, 0x8000_0000, 0x1234_0000] {
            assert_eq!(judged(&[ERRNO, harm]), Verdict::Harms, "{harm:#x}");
        }
    }
}
