//! How a thread comes to stand.

use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::TargetError;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::error::traced;
use crate::late;
use crate::lock::is_ending;
use crate::ptrace::Standing;
use crate::ticks::Ticks;

/// Begins to trace a thread; it goes on running.
pub(crate) fn seize(pid: i32, tid: i32) -> Result<(), TargetError> {
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD;
    ptrace::seize(Pid::from_raw(tid), options).or_else(|error| match error {
        Errno::EPERM => {
            let tracer = procfs::process::Process::new(tid)
                .and_then(|task| task.status())
                .map_or(0, |status| status.tracerpid);
            // Left from an attempt at which it did not stop in time.
            if tracer == nix::unistd::gettid().as_raw() {
                late::forget(tid);
                return Ok(());
            }
            if tracer != 0 && is_ending(tracer) {
                return Err(TargetError::NotNow(format!(
                    "process {tracer}, which traced process {pid}, is ending"
                )));
            }
            if tracer != 0 {
                return Err(TargetError::Traced { pid, tracer });
            }
            // A thread that is ending cannot be traced any more; a main thread may
            // have ended long before the others.
            if is_dead(tid) {
                return Err(TargetError::Gone(pid));
            }
            Err(TargetError::NotPermitted {
                what: format!("trace process {pid}"),
            })
        }
        other => Err(traced(pid, "trace", other)),
    })
}

pub(crate) fn is_dead(tid: i32) -> bool {
    let stat = procfs::process::Process::new(tid).and_then(|task| task.stat());
    stat.map_or(true, |stat| matches!(stat.state, 'Z' | 'X'))
}

/// Asks a seized thread to stop.
pub(crate) fn interrupt(pid: i32, tid: i32) -> Result<(), TargetError> {
    ptrace::interrupt(Pid::from_raw(tid)).map_err(|error| traced(pid, "interrupt", error))
}

/// Waits until a thread that was interrupted stands.
pub(crate) fn wait_standing(
    pid: i32,
    tid: i32,
    patience: Duration,
    ticks: &Rc<Ticks>,
) -> Result<Standing, TargetError> {
    let mut standing = Standing::new(pid, tid, ticks);
    let deadline = Instant::now() + patience;
    loop {
        let stop = standing.wait(deadline)?;
        if standing.stands_at(stop)? {
            return Ok(standing);
        }
    }
}
