//! Threads that did not come to their stop in time.
//!
//! They come to it later, when nobody waits for them any more, and would stand there with
//! whatever lock they hold for as long as their tracer lives. For example: a thread is asked to
//! stop inside the allocator and gets no processor for seconds; another one is taken instead,
//! a function is called in it, and that function allocates.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::TargetError;

use crate::proc_file::Status;
use crate::ptrace::Standing;
use crate::seize::interrupt;
use crate::ticks::Ticks;

/// How long a thread that is to be let go may take to stop, and one that gets no processor.
const PATIENCE: Duration = Duration::from_millis(200);
const WITHOUT_PROCESSOR: Duration = Duration::from_secs(4);
/// How often they are looked at: so long one stands at most that comes to its stop late.
const LOOK: Duration = Duration::from_micros(500);

thread_local! {
    /// Those that the deputy traces which runs here now. One that is killed leaves no borrow behind.
    static LATE: Cell<Vec<Late>> = const { Cell::new(Vec::new()) };
}

struct Late {
    pid: i32,
    tid: i32,
    /// It was asked to stop.
    asked: bool,
}

/// This thread was left without having stopped, which it was asked to do or not.
pub(crate) fn note(pid: i32, tid: i32, asked: bool) {
    let mut late = LATE.take();
    late.push(Late { pid, tid, asked });
    LATE.set(late);
}

/// This thread is waited for again.
pub(crate) fn forget(tid: i32) {
    let mut late = LATE.take();
    late.retain(|late| late.tid != tid);
    LATE.set(late);
}

/// A new tracer has none.
pub(crate) fn begin() {
    LATE.set(Vec::new());
}

/// Lets those go on that have stopped meanwhile, as if they had not been.
pub(crate) fn let_go() {
    let mut late = LATE.take();
    if late.is_empty() {
        return;
    }
    let ticks = Rc::new(Ticks::new());
    late.retain(|late| !is_let_go(Standing::new(late.pid, late.tid, &ticks)));
    // Letting one go may have noted it anew.
    late.append(&mut LATE.take());
    LATE.set(late);
}

/// Lets all of them go on while their tracer lives on, and none of the others stands. One that is traced
/// and was not asked would stop at its next signal, and stand until somebody looks: so it is asked.
pub(crate) fn settle() {
    let mut late = LATE.take();
    for one in late.iter_mut().filter(|one| !one.asked) {
        one.asked = interrupt(one.pid, one.tid).is_ok();
    }
    LATE.set(late);
    rest_until(Instant::now() + PATIENCE, true);
}

/// Lets time pass in which those that stop meanwhile are let go at once.
pub(crate) fn rest(time: Duration) {
    rest_until(Instant::now() + time, false);
}

fn rest_until(end: Instant, only_for_them: bool) {
    loop {
        let_go();
        let late = LATE.take();
        let nobody = late.is_empty();
        LATE.set(late);
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || nobody && only_for_them {
            return;
        }
        std::thread::sleep(if nobody { left } else { left.min(LOOK) });
    }
}

/// The same before the tracer ends: the kernel lets go whoever is left, but the call out of which
/// a thread was called is kept only where it stands.
pub(crate) fn end() {
    let begun = Instant::now();
    loop {
        let_go();
        let mut late = LATE.take();
        late.retain(|late| late.asked);
        let comes = |late: &Late| Status::of_thread(late.pid, late.tid).state() == 'R';
        let patience = if late.iter().any(comes) {
            WITHOUT_PROCESSOR
        } else {
            PATIENCE
        };
        if late.is_empty() || begun.elapsed() > patience {
            return;
        }
        LATE.set(late);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// False if it has not stopped yet.
fn is_let_go(mut thread: Standing) -> bool {
    match thread.look() {
        Ok(Some(stop)) => thread.let_go_at(&stop),
        Err(TargetError::Gone(_)) => {}
        Ok(None) | Err(_) => {
            thread.stay_traced();
            return false;
        }
    }
    true
}
