//! Threads that did not come to their stop in time.
//!
//! They come to it later, when nobody waits for them any more, and would stand there with
//! whatever lock they hold for as long as their tracer lives. For example: a thread is asked to
//! stop inside the allocator and gets no processor for seconds; another one is taken instead,
//! a function is called in it, and that function allocates.

use std::cell::Cell;
use std::rc::Rc;

use invivo_apply::TargetError;

use crate::ptrace::Standing;
use crate::ticks::Ticks;

thread_local! {
    /// Process and thread of each: those that the deputy traces which runs here now. A deputy that
    /// is killed leaves no borrow behind.
    static LATE: Cell<Vec<(i32, i32)>> = const { Cell::new(Vec::new()) };
}

/// This thread was left without having stopped.
pub(crate) fn note(pid: i32, tid: i32) {
    let mut late = LATE.take();
    late.push((pid, tid));
    LATE.set(late);
}

/// This thread is waited for again.
pub(crate) fn forget(tid: i32) {
    let mut late = LATE.take();
    late.retain(|(_, other)| *other != tid);
    LATE.set(late);
}

/// A new tracer has none.
pub(crate) fn begin() {
    LATE.set(Vec::new());
}

/// Lets those go on that have stopped meanwhile, as if they had not been.
pub(crate) fn let_go(ticks: &Rc<Ticks>) {
    let mut late = LATE.take();
    if late.is_empty() {
        return;
    }
    late.retain(|(pid, tid)| !is_let_go(Standing::new(*pid, *tid, ticks)));
    // Letting one go may have noted it anew.
    late.append(&mut LATE.take());
    LATE.set(late);
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
