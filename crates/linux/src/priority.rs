//! This program's place in the queue for processors.

use std::marker::PhantomData;

/// While a thread of the target waits for us, we should not wait for a processor: as
/// long as this lives, this program comes first. At all other times the target does.
///
/// Only root may ask for that; for everybody else nothing changes.
#[derive(Debug)]
pub(crate) struct First {
    before: i32,
    /// Priorities belong to the thread of this program that asked.
    _same_thread: PhantomData<*const ()>,
}

impl First {
    pub(crate) fn new() -> First {
        // SAFETY: the call takes two numbers and returns one.
        let before = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        set(-20);
        First {
            before,
            _same_thread: PhantomData,
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        set(self.before);
    }
}

fn set(priority: i32) {
    // SAFETY: the call takes three numbers and changes only this thread's priority.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) };
}
