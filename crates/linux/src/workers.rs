//! Threads of a process in which the kernel itself works, as for `io_uring` and `vhost`.
//!
//! They run no code of the program, now or ever: none can be inside what is replaced, and none can
//! make a call for us. What they wait in fails where they are made to stand, so they are left alone.

use std::sync::OnceLock;

use libc::user_regs_struct;

use crate::Process;
use crate::proc_file;

/// `PF_IO_WORKER`, of threads that work for `io_uring`, and `PF_USER_WORKER`, of those that work for
/// `vhost`; and since which kernel. Older ones mean something else by either: 0x10 was the flag of a
/// thread that runs a virtual machine, and goes on in the program after that.
const WORKERS: [(u64, Version); 2] = [(0x10, (5, 12)), (0x4000, (6, 4))];

/// Of the kernel, its first two numbers.
type Version = (u32, u32);

impl Process {
    /// True if a thread that says so of itself in `syscall` can only be the kernel's: one of the program
    /// stands behind an instruction and has a stack. The kernel shows its own without both
    /// (`copy_thread` in arch/x86/kernel/process.c).
    pub(crate) fn is_worker_at(waits: &str) -> bool {
        let mut words = waits.trim_end().rsplit(' ');
        let mut none = || words.next() == Some("0x0");
        none() && none()
    }

    /// True if the kernel has marked the thread so, which is all that tells while it runs.
    pub(crate) fn is_marked_worker(&self, tid: i32) -> bool {
        let stat = proc_file::read_piece(&format!("/proc/{}/task/{tid}/stat", self.pid));
        stat.is_ok_and(|stat| is_flagged(&stat))
    }

    /// True for one of these threads, whatever it does.
    pub(crate) fn is_worker(&self, tid: i32) -> bool {
        let waits = || self.waits_at(tid);
        self.is_marked_worker(tid) || waits().is_some_and(|waits| Process::is_worker_at(&waits))
    }
}

/// True for a thread that stands with these registers: no place in the program, and no stack.
pub(crate) fn is_worker(registers: &user_regs_struct) -> bool {
    registers.rip == 0 && registers.rsp == 0
}

/// True if the kernel's flags in a `stat` say so.
pub(crate) fn is_flagged(stat: &str) -> bool {
    static KNOWN: OnceLock<Version> = OnceLock::new();
    let version = KNOWN.get_or_init(|| {
        let release = proc_file::read_piece("/proc/sys/kernel/osrelease");
        version_in(&release.unwrap_or_default()).unwrap_or((0, 0))
    });
    is_flagged_by(*version, stat)
}

/// The same for the flags of a kernel of this version.
fn is_flagged_by(version: Version, stat: &str) -> bool {
    /// The flags, of the values behind the name.
    const FLAGS: usize = 6;
    let flags = proc_file::value_of(stat, FLAGS).and_then(|flags| flags.parse::<u64>().ok());
    let has = |flags: u64| {
        let mut known = WORKERS.iter().filter(|(_, since)| version >= *since);
        known.any(|(flag, _)| flags & flag != 0)
    };
    flags.is_some_and(has)
}

/// `6.1.0-18-amd64` is 6.1.
fn version_in(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_place_and_stack_is_the_kernels() {
        assert!(Process::is_worker_at(
            "426 0x4 0x1 0x0 0x0 0x0 0x0 0x0 0x0\n"
        ));
        assert!(Process::is_worker_at("-1 0x0 0x0"));
        assert!(!Process::is_worker_at(
            "0 0x0 0x5 0x1 0x0 0x0 0x0 0x7ffd10 0x7f51"
        ));
        assert!(!Process::is_worker_at(
            "35 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x7f51"
        ));
        assert!(!Process::is_worker_at("running"));
    }

    #[test]
    fn the_flag_stands_behind_the_name() {
        let stat = |flags| format!("7 (a) b) S 1 7 7 0 -1 {flags} 0");
        let io = stat("4210768");
        assert!(is_flagged_by((6, 1), &io) && is_flagged_by((5, 12), &io));
        assert!(!is_flagged_by((6, 1), &stat("4194304")));
        let user = stat("16384");
        assert!(is_flagged_by((6, 4), &user) && !is_flagged_by((6, 3), &user));
        // There it is the flag of a thread that runs a virtual machine.
        assert!(!is_flagged_by((5, 10), &io));
        let own = proc_file::read_piece("/proc/self/stat").unwrap();
        assert!(!is_flagged(&own));
    }

    #[test]
    fn the_version_of_the_kernel_is_two_numbers() {
        assert_eq!(version_in("6.1.0-18-amd64\n"), Some((6, 1)));
        assert_eq!(version_in("5.10-rc1"), Some((5, 10)));
        assert_eq!(version_in("next"), None);
    }
}
