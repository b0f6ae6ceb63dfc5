//! All processes of Windows, looked at one after the other.

use invivo_windows::{Access, Process, is_not_ready, is_protected, processes};

use crate::failure::Failure;
use crate::looked::{Look, Looked, Unseen, told};

/// Asks each process that runs.
pub(super) fn look_at_each<T>(
    ask: &dyn Fn(u32, &str, &Process) -> Result<Vec<T>, Failure>,
) -> Result<Looked<T>, Failure> {
    look_at(&[], ask)
}

/// Asks these processes, as far as they run; no others are opened. None are all.
pub(super) fn look_at<T>(
    pids: &[u32],
    ask: &dyn Fn(u32, &str, &Process) -> Result<Vec<T>, Failure>,
) -> Result<Looked<T>, Failure> {
    let mut running = processes()?;
    running.retain(|one| pids.is_empty() || pids.contains(&one.pid));
    let running = running.into_iter();
    let look = Look {
        running: running.map(|one| (one.pid, one.name)).collect(),
        open: &|pid| Process::open(pid, Access::Read),
        protected: &is_protected,
        not_ready: &is_not_ready,
    };
    Ok(look.at_each(ask))
}

/// Tells who was not looked at.
pub(super) fn tell_unseen(unseen: &[Unseen]) {
    for line in told(unseen) {
        anstream::println!("{line}");
    }
}
