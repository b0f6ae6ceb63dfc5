//! Processes that have one and the same memory.
//!
//! A child of `vfork`, `posix_spawn` or `clone` with `CLONE_VM` runs in its parent's memory until it
//! executes a program of its own. It has a number, threads and files in `/proc` of its own,
//! and what is written into it is written into its parent.

use invivo_apply::TargetError;

use crate::incarnation::Seen;

/// `KCMP_VM` of `linux/kcmp.h`.
const MEMORY: i32 = 1;
/// Calls in which a parent waits until its child has memory of its own.
const WAITS: [i64; 3] = [libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3];

/// The process in whose memory this one runs, if it is another one that started it.
pub(crate) fn lent_by(pid: i32, seen: &Seen) -> Option<i32> {
    let parent = seen.parent;
    let is_lent = seen.has_memory && parent > 0 && is_shared(pid, parent);
    is_lent.then_some(parent)
}

/// The process in whose memory this one runs: what stands there is told and done with that one.
#[must_use]
pub fn lender(pid: i32) -> Option<i32> {
    lent_by(pid, &Seen::of(pid).ok()?)
}

/// Refuses a process that runs in another one's memory.
pub(crate) fn has_its_own(pid: i32, seen: &Seen) -> Result<(), TargetError> {
    match lent_by(pid, seen) {
        Some(parent) => Err(TargetError::NotNow(format!(
            "process {pid} runs in the memory of process {parent}, which started it (vfork), and is no \
             program of its own yet; name process {parent}"
        ))),
        None => Ok(()),
    }
}

fn is_shared(pid: i32, parent: i32) -> bool {
    // SAFETY: the call takes five numbers and writes nowhere.
    let answer = unsafe { libc::syscall(libc::SYS_kcmp, pid, parent, MEMORY, 0, 0) };
    match answer {
        0 => true,
        1..=3 => false,
        // The kernel has no such call, or a filter forbids it: then what the parent does tells.
        _ => waits_for_a_child(parent),
    }
}

/// True if some thread of the process stands in a call in which it waits for a child that has its memory.
fn waits_for_a_child(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let mut tasks = tasks.into_iter().flatten().flatten();
    tasks.any(|task| {
        let text = crate::proc_file::read_piece(&task.path().join("syscall").to_string_lossy());
        let call = text
            .ok()
            .and_then(|text| text.split(' ').next()?.trim().parse().ok());
        call.is_some_and(|call: i64| WAITS.contains(&call))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_with_its_own_memory_shares_none() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let result = has_its_own(pid, &Seen::of(pid).unwrap());
        // The other tests of this very program wait for children; `sleep` has none.
        let waits = waits_for_a_child(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(result.is_ok(), "{result:?}");
        let own = std::process::id().cast_signed();
        assert!(is_shared(own, own));
        assert!(!waits);
    }
}
