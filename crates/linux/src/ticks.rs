//! Waits for a thread of the target that come to an end.
//!
//! A wait inside the kernel returns in the very moment in which the thread stands, and
//! leaves it the processor until then; looking again and again does neither. But such a
//! wait knows no time-out, so that a timer interrupts it now and then.

use std::marker::PhantomData;
use std::time::Duration;

use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, SigmaskHow, Signal,
    pthread_sigmask, sigaction,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// The signal that interrupts.
const TICK: Signal = Signal::SIGVTALRM;
/// How often it does: often enough for the shortest wait, and hardly any takes that long.
const PERIOD: Duration = Duration::from_millis(5);

/// While this lives, waits of this thread are interrupted now and then.
#[derive(Debug)]
pub(crate) struct Ticks {
    timer: Option<Timer>,
    /// The signals that this thread held back before.
    before: SigSet,
    /// A timer is one thread's.
    _same_thread: PhantomData<*const ()>,
}

impl Ticks {
    /// Begins.
    pub(crate) fn new() -> Ticks {
        let mut before = SigSet::empty();
        let mut tick = SigSet::empty();
        tick.add(TICK);
        // Without SA_RESTART, which would let the wait go on.
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), tick);
        // SAFETY: the handler does nothing, and nothing else of this program uses the signal.
        let handled = unsafe { sigaction(TICK, &action) };
        let unblocked = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&tick), Some(&mut before));
        let timer = handled.and(unblocked).and_then(|()| timer());
        Ticks {
            timer: timer.ok(),
            before,
            _same_thread: PhantomData,
        }
    }

    /// False where the system gives no timer: then nothing interrupts a wait.
    pub(crate) fn tick(&self) -> bool {
        self.timer.is_some()
    }
}

fn timer() -> nix::Result<Timer> {
    let event = SigEvent::new(SigevNotify::SigevThreadId {
        signal: TICK,
        thread_id: nix::unistd::gettid().as_raw(),
        si_value: 0,
    });
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
    let period = TimeSpec::from_duration(PERIOD);
    let expiration = Expiration::IntervalDelayed(period, period);
    timer.set(expiration, TimerSetTimeFlags::empty())?;
    Ok(timer)
}

extern "C" fn nothing(_signal: libc::c_int) {}

impl Drop for Ticks {
    fn drop(&mut self) {
        // One that has come already does nothing, with a handler that stays.
        self.timer = None;
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use nix::errno::Errno;
    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_wait_for_what_does_not_come_is_interrupted() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("sleep");
        let pid = Pid::from_raw(child.id().cast_signed());
        let begun = Instant::now();
        let ticks = Ticks::new();
        assert!(ticks.tick());
        // Again and again: a tick that comes before the wait begins is not the last one.
        for _ in 0..2 {
            let ended = waitpid(pid, Some(WaitPidFlag::__WALL));
            assert_eq!(ended, Err(Errno::EINTR));
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        drop(ticks);
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
    }
}
