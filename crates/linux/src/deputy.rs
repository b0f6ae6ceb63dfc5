//! A deputy does what must not be left half done, and outlives this program.
//!
//! A thread that stands inside `epoll_wait` goes on with EINTR unless its tracer sees to
//! it, so the tracer must not be what somebody kills. The deputy is a child that shares
//! this program's memory, as one of `vfork` does: it traces, while the thread of this
//! program that asked for it stands still, or keeps a processor awake. If this program is killed meanwhile, the deputy
//! brings its work to an end, lets the target go, and ends; the lock is its own as well
//! until then. It is of a process group of its own, so that what kills the tool's group does not
//! hit it. (Not of a session: the kernel schedules each as one, so that a priority counts only
//! among its own.) What kills both at once (the kernel for want of memory,
//! a control group's end) still finds the target as a killed tracer leaves it.

use std::any::Any;
use std::cell::Cell;
use std::os::raw::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

use invivo_apply::TargetError;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

use crate::awake::Awake;
use crate::error::system;
use crate::late;

/// Room for its stack, in bytes; the kernel gives it when it is used.
const STACK: usize = 2 << 20;
/// The lowest part of it that cannot be used.
const GUARD: usize = 4096;
/// How long it may go on when this program is dead, in seconds. Another thread of this
/// program may have died with a lock in hand that the deputy needs.
const ALONE: libc::c_uint = 5;

thread_local! {
    /// The stack of the last deputy, for the next one.
    static KEPT: Cell<Option<Stack>> = const { Cell::new(None) };
    /// Whose deputy runs here, while one does all of something.
    static SERVES: Cell<Option<Pid>> = const { Cell::new(None) };
}

/// What it is to do, and what came of it.
struct Task<'a, F, T> {
    work: Option<F>,
    done: Option<Result<T, Box<dyn Any + Send>>>,
    parent: Pid,
    awake: Option<&'a Awake>,
}

/// Lets a deputy do `work`.
///
/// # Errors
/// Those of `work`, and when somebody killed the deputy: how far it came is not known then.
pub(crate) fn by_deputy<T>(
    work: impl FnOnce() -> Result<T, TargetError>,
) -> Result<T, TargetError> {
    by_deputy_while(None, work)
}

/// The same, while this thread keeps a processor `awake`.
pub(crate) fn by_deputy_while<T>(
    awake: Option<Awake>,
    work: impl FnOnce() -> Result<T, TargetError>,
) -> Result<T, TargetError> {
    let Some(parent) = SERVES.get() else {
        return start_deputy(awake, work);
    };
    // Nobody is held for a tool that has died, but by whom it held.
    end_if_alone(parent);
    let done = work();
    late::settle();
    end_if_alone(parent);
    done
}

/// Lets one deputy do all of `work`, in which processes are changed, instead of another one for
/// each time that a thread is held. If this program is killed, the deputy lets go whom it holds,
/// and ends.
///
/// # Errors
/// When somebody killed the deputy: how far it came is not known then.
pub fn with_one_deputy<T>(work: impl FnOnce() -> T) -> Result<T, TargetError> {
    let parent = Pid::this();
    let done = start_deputy(None, || {
        SERVES.set(Some(parent));
        let done = catch_unwind(AssertUnwindSafe(work));
        SERVES.set(None);
        done.or_else(|panic| resume_unwind(panic))
    });
    // A deputy that was killed has left it.
    SERVES.set(None);
    done
}

/// Ends the deputy, which is nobody else's process, if its parent is dead.
fn end_if_alone(parent: Pid) {
    if nix::unistd::getppid() != parent {
        // SAFETY: the call takes a number; nothing of what the process has is used afterwards.
        unsafe { libc::_exit(0) }
    }
}

fn start_deputy<T>(
    awake: Option<Awake>,
    work: impl FnOnce() -> Result<T, TargetError>,
) -> Result<T, TargetError> {
    let stack = match KEPT.take() {
        Some(stack) => stack,
        None => Stack::new()?,
    };
    let mut task = Task {
        work: Some(work),
        done: None,
        parent: Pid::this(),
        awake: awake.as_ref(),
    };
    let mut before = SigSet::empty();
    // What is meant for this program waits until the work is done.
    let all = SigSet::all();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before))
        .map_err(|error| system("block signals", error))?;
    let ended = start(&stack, &mut task);
    let restored = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    KEPT.set(Some(stack));
    restored.map_err(|error| system("let signals in", error))?;
    match (ended, task.done) {
        (_, Some(Ok(result))) => result,
        (_, Some(Err(panic))) => resume_unwind(panic),
        // Where no more processes may be started it is done all the same.
        (Err(_), None) => match task.work {
            Some(work) => work(),
            None => Err(killed("it never began")),
        },
        (Ok(Some(signal)), None) => Err(killed(&format!("signal {signal}"))),
        (Ok(None), None) => Err(killed("it left nothing")),
    }
}

fn killed(how: &str) -> TargetError {
    TargetError::Unfinished(format!(
        "the process that was to change the target was ended ({how})"
    ))
}

/// Starts the deputy; returns when it has ended, with the signal that ended it if one did.
fn start<F, T>(stack: &Stack, task: &mut Task<'_, F, T>) -> Result<Option<i32>, Errno>
where
    F: FnOnce() -> T,
{
    let awake = task.awake;
    let stands_still = if awake.is_none() {
        libc::CLONE_VFORK
    } else {
        0
    };
    let flags = libc::CLONE_VM | stands_still;
    let task: *mut Task<'_, F, T> = task;
    // SAFETY: the stack is the deputy's alone until it has ended, for which this thread waits
    // below. So `task` outlives it, and the memory of this thread (its thread-local variables
    // too) is used by one of the two at a time: with CLONE_VFORK this thread stands still, and
    // without it what it runs until then uses only its own stack, and what of `awake` is made
    // to be shared. It shares neither descriptors nor signal handlers with this program.
    let child = unsafe { libc::clone(deputy::<F, T>, stack.top(), flags, task.cast()) };
    let child = Errno::result(child)?;
    if let Some(awake) = awake {
        awake.keep();
    }
    let all = WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
    let ended = waitpid(rustix::process::Pid::from_raw(child), all);
    Ok(ended
        .ok()
        .flatten()
        .and_then(|(_, how)| how.terminating_signal()))
}

extern "C" fn deputy<F, T>(task: *mut c_void) -> libc::c_int
where
    F: FnOnce() -> T,
{
    // SAFETY: `start` passes its task, which nobody else uses until this child has ended.
    let task = unsafe { &mut *task.cast::<Task<'_, F, T>>() };
    if let Some(awake) = task.awake {
        awake.begin();
    }
    // Never refused to a new process; where it is, one more thing can kill both.
    let own = Pid::from_raw(0);
    let _ = nix::unistd::setpgid(own, own);
    end_soon_after(task.parent);
    late::begin();
    if let Some(work) = task.work.take() {
        // A panic belongs to the program that asked.
        task.done = Some(catch_unwind(AssertUnwindSafe(work)));
        late::end();
    }
    if let Some(awake) = task.awake {
        awake.end();
    }
    0
}

/// Gives the deputy only so much time once its parent is dead.
fn end_soon_after(parent: Pid) {
    // SAFETY: the structure is made of integers and an address, for which zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = count_down;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
    // SAFETY: the handler does only what handlers may, and the handlers are the child's own.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) };
    // SAFETY: the call takes two numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGALRM) };
    let mut alarm = SigSet::empty();
    alarm.add(nix::sys::signal::Signal::SIGALRM);
    // Without it the deputy only lives longer than it has to.
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&alarm), None);
    if nix::unistd::getppid() != parent {
        count_down(libc::SIGALRM);
    }
}

extern "C" fn count_down(_signal: libc::c_int) {
    // SAFETY: the call takes a number, and may be made from a handler. The second alarm
    // finds no handler and ends the process.
    unsafe { libc::alarm(ALONE) };
}

/// Memory for the deputy's stack.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> Result<Stack, TargetError> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory, anywhere, that nobody else knows.
        let at = unsafe { libc::mmap(ptr::null_mut(), STACK, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            let error = std::io::Error::last_os_error();
            return Err(system("make a stack", error));
        }
        let stack = Stack(at);
        // SAFETY: the first page of what was just made, which nothing uses.
        unsafe { libc::mprotect(at, GUARD, libc::PROT_NONE) };
        Ok(stack)
    }

    /// Stacks grow downwards.
    fn top(&self) -> *mut c_void {
        self.0.wrapping_byte_add(STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this size, and the deputy that used it has ended.
        unsafe { libc::munmap(self.0, STACK) };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_the_deputy_does_is_seen_here() {
        let mut seen = Vec::new();
        let parent = std::process::id();
        let done = by_deputy(|| {
            seen.push(std::process::id());
            Ok(nix::unistd::getppid().as_raw())
        });
        assert_eq!(done.unwrap(), i32::try_from(parent).unwrap());
        assert_ne!(seen, [parent], "another process did it");
    }

    #[test]
    fn who_keeps_a_processor_awake_comes_first_again() {
        use crate::priority::First;
        use rustix::process::getpriority_process;
        use rustix::thread::{gettid, sched_getaffinity};

        let priority = || getpriority_process(None).unwrap();
        let place = || (priority(), sched_getaffinity(None).unwrap());
        let before = place();
        let (tell, told) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            tell.send(gettid().as_raw_nonzero().get()).unwrap();
            std::thread::park();
        });
        let tid = told.recv().unwrap();
        let first = First::beside(std::process::id().cast_signed(), tid);
        let (held, awake) = (place(), first.keep_awake(tid).is_some());
        // Only root comes first, and only one other processor is kept awake.
        let two = before.1.count() == 2;
        assert!(!awake || (held.0 == -20 && held.1.count() == 1));
        // At once, for longer than it is kept awake, and when it ends in the middle.
        let this = gettid();
        for millis in [0, 10] {
            let work = || {
                std::thread::sleep(Duration::from_millis(millis));
                Ok(getpriority_process(Some(this)).unwrap())
            };
            let seen = by_deputy_while(first.keep_awake(tid), work).unwrap();
            // Later it has come back, unless others have kept it from the processor.
            assert!(!awake || seen == 19 || millis > 0, "{seen}");
            assert_eq!(priority(), held.0);
        }
        let killed = by_deputy_while::<()>(first.keep_awake(tid), || {
            nix::sys::signal::kill(Pid::this(), nix::sys::signal::Signal::SIGKILL).unwrap();
            Ok(())
        });
        assert!(matches!(killed, Err(TargetError::Unfinished(_))));
        assert_eq!(priority(), held.0);
        drop(first);
        other.thread().unpark();
        other.join().unwrap();
        assert_eq!(place(), before);
        let root = rustix::process::geteuid().is_root();
        assert_eq!(awake, two && root && before.0 == 0);
    }

    #[test]
    fn one_deputy_does_all() {
        let who = || by_deputy(|| Ok((std::process::id(), nix::unistd::gettid())));
        let all = with_one_deputy(|| [who().unwrap(), who().unwrap()]).unwrap();
        assert_eq!(all[0], all[1]);
        assert_ne!(all[0].0, std::process::id());
        // Afterwards each time has its own again.
        assert_ne!(who().unwrap(), who().unwrap());
        let panicked = catch_unwind(|| with_one_deputy(|| panic!("on purpose")));
        assert!(panicked.is_err() && SERVES.get().is_none());
    }

    #[test]
    fn a_deputy_for_all_that_is_killed_is_no_success() {
        let killed = with_one_deputy(|| {
            nix::sys::signal::kill(Pid::this(), nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        assert!(matches!(killed, Err(TargetError::Unfinished(_))));
        assert_eq!(by_deputy(|| Ok(7)).unwrap(), 7);
    }

    #[test]
    fn an_error_and_a_panic_come_back() {
        let failed = by_deputy::<()>(|| Err(TargetError::Gone(7)));
        assert!(matches!(failed, Err(TargetError::Gone(7))));
        let panicked = catch_unwind(|| by_deputy::<()>(|| panic!("on purpose")));
        assert!(panicked.is_err());
    }

    #[test]
    fn a_deputy_that_is_killed_is_no_success() {
        let killed = by_deputy::<()>(|| {
            nix::sys::signal::kill(Pid::this(), nix::sys::signal::Signal::SIGKILL).unwrap();
            Ok(())
        });
        assert!(matches!(killed, Err(TargetError::Unfinished(_))));
    }
}
