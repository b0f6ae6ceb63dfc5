//! Threads that hold no lock of the language's runtime, the loader or the allocator.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use invivo_apply::{TargetError, Visit};
use invivo_image::LiveAddr;
use procfs::process::MMapPath;

use crate::Process;
use crate::carrier::Carrier;
use crate::deputy::by_deputy;
use crate::ptrace::Standing;
use crate::unwind::Unwinder;

/// How many threads are asked at most where it may as well be left.
const ASKED: usize = 3;
/// How long the thread that was held before may take until it waits again. It needs a processor.
const RETURN: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_micros(50);

/// Calls in which a thread waits for others.
const WAITS: [i64; 18] = [
    libc::SYS_read,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_pause,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
];

/// `Ok` if the thread waits in a system call that the program itself made through
/// libc: then it holds no lock of the unwinder, the loader or the allocator.
///
/// Inside libc only the innermost frames (the wrapper of the call) and the outermost
/// ones (the start of the thread) may lie.
pub(crate) fn is_outside_runtime(
    process: &Process,
    thread: &Standing,
    unwinder: &RefCell<Unwinder>,
) -> Result<(), TargetError> {
    let busy = |why: &str| {
        Err(TargetError::NotNow(format!(
            "thread {} of process {} may hold a lock of the runtime: {why}",
            thread.tid(),
            process.pid
        )))
    };
    let registers = thread.held()?;
    let Some(call) = thread.call() else {
        return busy("it is running");
    };
    let walk = unwinder.borrow_mut().walk(&process.memory, &registers);
    if let Some(why) = walk.unknown {
        return busy(&why);
    }
    // For example, a garbage collector's handler waits in `sigsuspend` over a `malloc`.
    if walk.handler {
        return busy("it is inside a signal's handler");
    }
    let maps = process.maps()?;
    let file_of = |pc: &LiveAddr| {
        let map = maps
            .iter()
            .find(|map| map.address.0 <= pc.0 && pc.0 < map.address.1);
        map.map(|map| match &map.pathname {
            MMapPath::Path(path) => path.to_string_lossy().into_owned(),
            other => format!("{other:?}"),
        })
    };
    let files: Option<Vec<String>> = walk.frames.iter().map(file_of).collect();
    let Some(files) = files else {
        return busy("a frame is in no file");
    };
    let name = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
    let in_libc =
        |path: &String| name(path).starts_with("libc.so") || name(path).starts_with("libc-");
    if files
        .iter()
        .any(|path| name(path).starts_with("ld-") || name(path).starts_with("libgcc"))
    {
        return busy("it is inside the loader or the unwinder");
    }
    let inner = files.iter().take_while(|path| in_libc(path)).count();
    // The first function of a program, `_start`, is its own, and calls libc's.
    let begins = walk.frames.last().is_some_and(|at| process.begins_at(*at));
    let outer = files.iter().rev().skip(usize::from(begins));
    let outer = outer.take_while(|path| in_libc(path)).count();
    // Nobody waits for a peer or for time with the allocator's lock in hand; whoever
    // waits for a lock may.
    let resumed = call == libc::SYS_restart_syscall.cast_unsigned();
    if WAITS.iter().any(|wait| wait.cast_unsigned() == call)
        || resumed && process.polls_or_sleeps(&walk.frames)
    {
        return Ok(());
    }
    // Whoever was woken has been given what others wait for as well, a lock or an item. They get it
    // when this thread goes on, and may hold another lock meanwhile. For example: two threads wait
    // for the allocator, the second one inside the loader; the first one is woken, held, and
    // has a function called in it that wants the loader's lock.
    // And whoever makes a call that does not wait may make it for the allocator.
    if !thread.is_waiting() {
        return busy("its call has just ended");
    }
    let for_a_lock = resumed || call == libc::SYS_futex.cast_unsigned();
    if for_a_lock && process.waits_in_allocator(&walk.frames) {
        return busy("it may wait inside an allocator");
    }
    // The wrapper of a call is one function, with a second one behind it for those
    // at which a thread can be cancelled.
    if inner > 3 || inner + outer < files.iter().filter(|path| in_libc(path)).count() {
        return busy("it is deep inside libc");
    }
    Ok(())
}

impl Process {
    /// True if `at` is in the function with which the program begins to run.
    fn begins_at(&self, at: LiveAddr) -> bool {
        /// Longer than `_start`, which prepares arguments for one call.
        const LONGEST: u64 = 64;
        let entry = self.entry().unwrap_or(LiveAddr(0));
        entry.0 > 0 && at.0.checked_sub(entry.0).is_some_and(|n| n <= LONGEST)
    }

    /// True if a thread is in a wait of libc for a peer or for time. Where the kernel has resumed a wait
    /// with a time-out, its call no longer tells which one it was: that for a lock is another.
    fn polls_or_sleeps(&self, frames: &[LiveAddr]) -> bool {
        let innermost = self.names_of(&frames[..frames.len().min(1)]);
        let name = innermost.into_iter().flatten().next().unwrap_or_default();
        let waits = |function: &str| function.contains("poll") || function.contains("nanosleep");
        name.split_once(" in ")
            .is_some_and(|(function, file)| file.starts_with("libc") && waits(function))
    }

    /// True if a thread that waits for a lock may do so inside an allocator, which programs bring
    /// along: one of its innermost functions outside of libc has no name, or such a name.
    fn waits_in_allocator(&self, frames: &[LiveAddr]) -> bool {
        const INNERMOST: usize = 12;
        const OTHERS: [&str; 4] = ["pthread_cond_", "pthread_join", "sem_", "pthread_barrier_"];
        const NAMES: [&str; 12] = [
            "alloc",
            "memalign",
            "operator new",
            "operator delete",
            "arena",
            "SpinLock",
            "je_",
            "mi_",
            "tc_",
            "free",
            "purge",
            "decay",
        ];
        let names = self.names_of(&frames[..frames.len().min(INNERMOST)]);
        let split = |name: &'_ Option<String>| -> (String, bool) {
            let name = name.clone().unwrap_or_default();
            match name.split_once(" in ") {
                Some((function, file)) => (function.to_owned(), file.starts_with("libc")),
                None => (String::new(), name.starts_with("libc")),
            }
        };
        let names: Vec<(String, bool)> = names.iter().map(split).collect();
        let waits = |(name, libc): &(String, bool)| {
            *libc && OTHERS.iter().any(|part| name.starts_with(part))
        };
        let allocates = |(name, libc): &(String, bool)| {
            // The library that Rust's types are of tells nothing.
            let name = name.replace("alloc::", "");
            (name.is_empty() && !libc) || NAMES.iter().any(|part| name.contains(part))
        };
        !names.iter().any(waits) && names.iter().any(allocates)
    }

    /// Makes `calls` on a thread that is known to hold no such lock, if one of the first that wait
    /// for others does not. Nobody is waited for but the one that was held a moment ago, which is on
    /// its way back into its call: often it is the only thread. Threads with a filter of their system
    /// calls are left alone: what the runtime calls is not known exactly.
    pub(crate) fn visit_one_that_waits(
        &self,
        calls: &mut dyn FnMut(&mut dyn Visit) -> Result<(), TargetError>,
    ) -> Result<Option<Duration>, TargetError> {
        let waits = |tid: &i32| {
            let call = self.waits_in(*tid);
            let is_wait = |call| WAITS.contains(&call) || call == libc::SYS_restart_syscall;
            call.is_some_and(is_wait) && !self.is_filtered(*tid)
        };
        if let Some(tid) = self.returning.take() {
            let until = Instant::now() + RETURN;
            while self.waits_in(tid).is_none() && self.has_thread(tid) && Instant::now() < until {
                std::thread::sleep(POLL);
            }
        }
        let tids = self.first_and_others().filter(waits);
        let tids: Vec<i32> = tids.take(ASKED).collect();
        if tids.is_empty() {
            return Ok(None);
        }
        let unwinder = RefCell::new(Unwinder::new(self)?);
        by_deputy(|| {
            let fits = |process: &Process, thread: &Standing| {
                is_outside_runtime(process, thread, &unwinder)
            };
            for tid in tids {
                // Whoever cannot be used now is none that is asked for.
                if let Ok(mut carrier) = self.hold_that(tid, &fits) {
                    let result = calls(&mut carrier);
                    let left = Carrier::leave(carrier);
                    return result.and(left).map(Some);
                }
            }
            Ok(None)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::thread::{CpuSet, futex, gettid, sched_getcpu, sched_setaffinity};

    use super::*;
    use crate::Access;
    use crate::seize::{interrupt, seize, wait_standing};
    use crate::ticks::Ticks;

    static GATE: AtomicU32 = AtomicU32::new(0);

    /// Begins a thread that waits at the gate, and gets a processor only where nobody else wants it.
    fn wait_at_gate() -> (i32, std::thread::JoinHandle<()>) {
        let (tell, told) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            let none = libc::sched_param { sched_priority: 0 };
            // SAFETY: the call reads `none`, and is about this thread alone.
            assert_eq!(0, unsafe {
                libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none)
            });
            tell.send(gettid().as_raw_nonzero().get()).unwrap();
            while GATE.load(Ordering::Acquire) == 0 {
                let _ = futex::wait(&GATE, futex::Flags::PRIVATE, 0, None);
            }
        });
        (told.recv().unwrap(), waits)
    }

    #[test]
    fn who_was_woken_carries_no_call() {
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here).unwrap();
        // SAFETY: the call takes two numbers. Whoever a deputy is may trace this process then.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
        let futex = Some(libc::SYS_futex.cast_unsigned());
        // A machine that is busy may let it run before it is held: then so once more.
        for _ in 0..100 {
            GATE.store(0, Ordering::Release);
            let (tid, waits) = wait_at_gate();
            let process = Process::open(std::process::id().cast_signed(), Access::Read).unwrap();
            let unwinder = RefCell::new(Unwinder::new(&process).unwrap());
            let asked = |wake: bool| {
                while process.waits_in(tid) != Some(libc::SYS_futex) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                by_deputy(|| {
                    if wake {
                        GATE.store(1, Ordering::Release);
                        futex::wake(&GATE, futex::Flags::PRIVATE, 1).unwrap();
                    }
                    let ticks = Rc::new(Ticks::new());
                    seize(process.pid, tid)?;
                    interrupt(process.pid, tid)?;
                    let thread = wait_standing(process.pid, tid, Duration::from_secs(60), &ticks)?;
                    let fits = is_outside_runtime(&process, &thread, &unwinder);
                    let call = thread.call();
                    thread.release()?;
                    Ok((call, fits.map_err(|error| error.to_string())))
                })
            };
            assert_eq!(asked(false).unwrap(), (futex, Ok(())));
            let woken = asked(true);
            waits.join().unwrap();
            if let Ok((call, fits)) = woken
                && call == futex
            {
                assert!(fits.unwrap_err().ends_with("its call has just ended"));
                return;
            }
        }
        panic!("it always ran before it was held");
    }
}
