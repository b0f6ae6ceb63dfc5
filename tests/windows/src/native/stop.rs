//! Threads of this process that can be made to stand: a signal takes each of them into a handler,
//! which notes where it was and waits there.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use invivo_apply::{Stack, Thread};
use invivo_image::LiveAddr;

/// More threads than any test has.
const MOST: usize = 64;

/// Numbers of the threads that take part; 0 where none does.
static THREADS: [AtomicI32; MOST] = [const { AtomicI32::new(0) }; MOST];
/// Where each of them was.
static PLACES: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
/// How many stand.
static STANDING: AtomicUsize = AtomicUsize::new(0);
/// True while they have to.
static STAND: AtomicBool = AtomicBool::new(false);

/// Whoever lets threads come, go or stand has it: several tests run in one process.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const SIGNAL: i32 = libc::SIGURG;

/// A thread that takes part for as long as this is kept.
#[derive(Debug)]
pub struct Enlisted(usize);

impl Enlisted {
    /// Enlists the thread that calls it.
    ///
    /// # Errors
    /// When there are too many, or the handler cannot be set.
    pub fn new() -> Result<Enlisted> {
        let _turn = turn();
        // SAFETY: all of it is zeros or set below, and the handler only uses what a signal
        // handler may use: atomics, and its own number.
        let set = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut())
        };
        if set != 0 {
            bail!("no handler");
        }
        let own = me();
        let free = |slot: &AtomicI32| {
            let taken = slot.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst);
            taken.is_ok()
        };
        match THREADS.iter().position(free) {
            Some(place) => Ok(Enlisted(place)),
            None => bail!("too many threads"),
        }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        let _turn = turn();
        THREADS[self.0].store(0, Ordering::SeqCst);
    }
}

fn me() -> i32 {
    // SAFETY: it only asks.
    unsafe { libc::gettid() }
}

extern "C" fn handler(_: i32, _: *const libc::siginfo_t, context: *const libc::ucontext_t) {
    let own = me();
    let mine = |slot: &AtomicI32| slot.load(Ordering::SeqCst) == own;
    if let Some(place) = THREADS.iter().position(mine) {
        // SAFETY: the kernel gives the handler the state that it interrupted.
        let at = unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
        PLACES[place].store(at.cast_unsigned(), Ordering::SeqCst);
        STANDING.fetch_add(1, Ordering::SeqCst);
        while STAND.load(Ordering::SeqCst) {
            std::hint::spin_loop();
            // SAFETY: it only gives the processor away.
            unsafe { libc::sched_yield() };
        }
        STANDING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// All threads that take part stand while this is kept. The one that makes it must not take part.
#[derive(Debug)]
pub(super) struct Stand {
    _turn: MutexGuard<'static, ()>,
}

impl Stand {
    pub(super) fn new() -> Stand {
        let turn = turn();
        STAND.store(true, Ordering::SeqCst);
        let mut count = 0;
        for slot in &THREADS {
            let tid = slot.load(Ordering::SeqCst);
            if tid == 0 {
                continue;
            }
            // SAFETY: a signal to a thread of this process, which has a handler for it.
            let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, SIGNAL) };
            count += usize::from(sent == 0);
        }
        while STANDING.load(Ordering::SeqCst) < count {
            std::thread::yield_now();
        }
        Stand { _turn: turn }
    }

    /// Where each of them is; what called it is not known.
    pub(super) fn stacks(&self) -> Vec<Stack> {
        let slots = THREADS.iter().zip(&PLACES);
        let known = slots.map(|(tid, at)| (tid.load(Ordering::SeqCst), at.load(Ordering::SeqCst)));
        let known = known.filter(|(tid, _)| *tid != 0);
        known
            .map(|(tid, at)| Stack {
                thread: Thread {
                    tid,
                    name: "caller".to_owned(),
                },
                frames: vec![LiveAddr(at)],
                unknown: Some("only the innermost place is looked at".to_owned()),
                running: true,
                handlers: false,
            })
            .collect()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        STAND.store(false, Ordering::SeqCst);
        while STANDING.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}
