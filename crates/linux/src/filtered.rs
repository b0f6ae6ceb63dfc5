//! Which threads filter their system calls, seen from outside.

use invivo_apply::TargetError;

use crate::Process;
use crate::proc_file::Status;
use crate::seccomp;

/// The calls that a thread makes for a patch: memory for it, text moved aside and back, memory
/// given back, and the way back to what the thread was doing.
pub const CALLS: [&str; 4] = ["mmap", "mremap", "munmap", "rt_sigreturn"];

/// What is known of filters (seccomp) without stopping anybody. What they answer, they tell only
/// of a thread that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// Threads with filters.
    pub filtered: usize,
    /// Threads that may only read, write and exit (strict mode).
    pub strict: usize,
    /// All threads.
    pub threads: usize,
    /// True if this program may ask the filters, which takes `CAP_SYS_ADMIN`.
    pub readable: bool,
}

impl Process {
    /// Which threads filter their system calls.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn filtered(&self) -> Result<Filtered, TargetError> {
        let mut found = Filtered {
            filtered: 0,
            strict: 0,
            threads: 0,
            readable: seccomp::can_be_read(),
        };
        for tid in self.tids()? {
            let status = Status::of_thread(self.pid, tid);
            // Who ended meanwhile says nothing.
            let Some(mode) = status.field("Seccomp:") else {
                continue;
            };
            found.threads += 1;
            match mode {
                "1" => found.strict += 1,
                "2" => found.filtered += 1,
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    #[test]
    fn threads_of_this_process_are_counted() {
        let own = std::process::id().cast_signed();
        let found = Process::open(own, Access::Read)
            .unwrap()
            .filtered()
            .unwrap();
        assert!(found.threads > 0 && found.filtered + found.strict <= found.threads);
    }
}
