//! ptrace, as far as it is used: a thread that stands is a [`Standing`], and only
//! a standing one can be asked for anything.

use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::TargetError;
use libc::user_regs_struct;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus, waitpid};

use crate::error::traced;
use crate::late;
use crate::seccomp::{Call, Filters, Verdict};
use crate::seize::interrupt;
use crate::ticks::Ticks;

/// `PTRACE_EVENT_STOP`: nix has no name for it.
const EVENT_STOP: i32 = 128;
/// `PTRACE_O_SUSPEND_SECCOMP`.
const SUSPEND_SECCOMP: libc::c_int = 1 << 21;
/// `-ERESTARTSYS`, `-ERESTARTNOINTR`, `-ERESTARTNOHAND`, `-ERESTART_RESTARTBLOCK`: the kernel's own,
/// not seen by programs, which resumes the call.
const RESUMED: [i32; 4] = [512, 513, RESTART_NO_HANDLER, RESTART_BLOCK];
/// `-ERESTARTNOHAND`: the kernel makes the call again, but for a signal that has a handler.
const RESTART_NO_HANDLER: i32 = 514;
/// `-ERESTART_RESTARTBLOCK`: the kernel resumes the call with another one, `restart_syscall`.
pub(crate) const RESTART_BLOCK: i32 = 516;

/// A thread that this program traces and that stands still.
///
/// Requests belong to the thread of this program that attached, so it cannot move to
/// another one. Dropping it lets the thread go on.
#[derive(Debug)]
pub(crate) struct Standing {
    tid: Pid,
    pid: i32,
    /// The system call that it was inside when it stopped.
    call: Option<u64>,
    /// Those with which it stands, once its call was seen to.
    held: Option<user_regs_struct>,
    gone: bool,
    /// Not to be shared: requests belong to the thread that attached.
    ticks: Rc<Ticks>,
}

/// How a wait ended.
pub(crate) enum Stop {
    /// Where it was asked to stop.
    Event,
    /// On its way into or out of a system call.
    SystemCall,
    /// A stop of the whole process (`SIGSTOP`).
    Group,
    /// With a signal in hand that is not delivered yet.
    Signal(Signal),
}

/// The number of a signal, real-time ones included: those that libc uses for itself too, without
/// which `setuid` and `pthread_cancel` wait for ever.
#[derive(Clone, Copy)]
pub(crate) struct Signal(i32);

/// Lets a thread that stands go on, with a signal in hand or none.
fn resume(request: libc::c_uint, tid: Pid, signal: Option<Signal>) -> Result<(), Errno> {
    let signal = signal.map_or(0, |signal| libc::c_long::from(signal.0));
    let nothing: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: the requests that let a thread go on (see the callers) take a number and no memory.
    let result = unsafe { libc::ptrace(request, tid.as_raw(), nothing, signal) };
    Errno::result(result).map(drop)
}

/// What a thread stopped for; `None` for what nobody asked for.
fn stop_of(status: WaitStatus) -> Option<Stop> {
    /// Added for a system call, as `PTRACE_O_TRACESYSGOOD` asks for.
    const OF_CALL: i32 = 0x80;
    let signal = status.stopping_signal()?;
    match status.as_raw() >> 16 {
        EVENT_STOP if signal == libc::SIGTRAP => Some(Stop::Event),
        EVENT_STOP => Some(Stop::Group),
        0 if signal == libc::SIGTRAP | OF_CALL => Some(Stop::SystemCall),
        0 => Some(Stop::Signal(Signal(signal))),
        _ => None,
    }
}

impl Standing {
    /// A traced thread that is about to stand.
    pub(crate) fn new(pid: i32, tid: i32, ticks: &Rc<Ticks>) -> Standing {
        Standing {
            tid: Pid::from_raw(tid),
            pid,
            call: None,
            held: None,
            gone: false,
            ticks: Rc::clone(ticks),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn tid(&self) -> i32 {
        self.tid.as_raw()
    }

    /// Its next stop, if it has come to one.
    pub(crate) fn look(&mut self) -> Result<Option<Stop>, TargetError> {
        self.next_stop(WaitOptions::NOHANG)
    }

    fn next_stop(&mut self, more: WaitOptions) -> Result<Option<Stop>, TargetError> {
        let all = WaitOptions::from_bits_retain(libc::__WALL.cast_unsigned());
        let tid = rustix::process::Pid::from_raw(self.tid.as_raw());
        match waitpid(tid, all | more) {
            Ok(Some((_, status))) if status.exited() || status.signaled() => {}
            Ok(status) => return Ok(status.and_then(|(_, status)| stop_of(status))),
            Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(rustix::io::Errno::CHILD) => {}
            Err(error) => {
                let error = Errno::from_raw(error.raw_os_error());
                return Err(traced(self.pid, "wait for", error));
            }
        }
        self.gone = true;
        Err(TargetError::Gone(self.pid))
    }

    /// Waits for the next stop.
    pub(crate) fn wait(&mut self, deadline: Instant) -> Result<Stop, TargetError> {
        loop {
            // What this one does may need what they hold.
            late::let_go();
            // Without time left, it is only looked at.
            let stop = if self.ticks.tick() && Instant::now() < deadline {
                self.next_stop(WaitOptions::empty())?
            } else {
                self.look()?
            };
            if let Some(stop) = stop {
                return Ok(stop);
            }
            if Instant::now() > deadline {
                return Err(TargetError::NotNow(format!(
                    "thread {} of process {} does not stop (it waits inside the kernel)",
                    self.tid, self.pid
                )));
            }
            if !self.ticks.tick() {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    }

    /// True once it has come to where it was asked to stop.
    pub(crate) fn comes_to_stand(&mut self) -> Result<bool, TargetError> {
        match self.look()? {
            Some(stop) => self.stands_at(stop),
            None => Ok(false),
        }
    }

    /// True if it has come to where it was asked to stop; from any other stop it goes on.
    pub(crate) fn stands_at(&mut self, stop: Stop) -> Result<bool, TargetError> {
        match stop {
            Stop::Event | Stop::Group => {
                self.keep_its_call()?;
                return Ok(true);
            }
            // The signal is the thread's own: it gets it, and the stop follows.
            Stop::Signal(signal) => self.go_on(Some(signal))?,
            Stop::SystemCall => self.go_on(None)?,
        }
        Ok(false)
    }

    /// Lets it run on; a signal that it was about to get comes with that.
    pub(crate) fn go_on(&self, signal: Option<Signal>) -> Result<(), TargetError> {
        resume(libc::PTRACE_CONT, self.tid, signal).map_err(|e| traced(self.pid, "continue", e))
    }

    /// Lets it run on, up to the next edge of a system call.
    pub(crate) fn run_on(&self, signal: Option<Signal>) -> Result<(), TargetError> {
        resume(libc::PTRACE_SYSCALL, self.tid, signal).map_err(|e| traced(self.pid, "continue", e))
    }

    /// Lets it run to the next edge of a system call, and waits for it.
    pub(crate) fn run_to_system_call(&mut self, patience: Duration) -> Result<(), TargetError> {
        let deadline = Instant::now() + patience;
        let mut signal = None;
        loop {
            self.run_on(signal)?;
            match self.wait(deadline).map_err(unfinished)? {
                Stop::SystemCall => return Ok(()),
                Stop::Signal(other) => signal = Some(other),
                Stop::Event | Stop::Group => signal = None,
            }
        }
    }

    /// Lets it run to where it can be let go: inside the kernel, just before its own code.
    pub(crate) fn run_to_edge(&mut self, patience: Duration) -> Result<(), TargetError> {
        interrupt(self.pid, self.tid.as_raw())?;
        let deadline = Instant::now() + patience;
        let mut signal = None;
        loop {
            self.go_on(signal)?;
            match self.wait(deadline).map_err(unfinished)? {
                Stop::Event | Stop::Group => return Ok(()),
                Stop::Signal(other) => signal = Some(other),
                Stop::SystemCall => signal = None,
            }
        }
    }

    /// Sees to it, first of all, that it goes on as if it had never been stopped, even if
    /// this program dies the next moment.
    ///
    /// The kernel restarts most interrupted system calls by itself. It returns EINTR
    /// from `epoll_wait`, `semtimedop`, `sigtimedwait` and socket calls with a time-out,
    /// although no signal came. These get another result, at which the kernel makes the call
    /// again unless a handler of a signal runs first, and says EINTR then: nobody else can know
    /// that, for a signal may come at any time.
    pub(crate) fn keep_its_call(&mut self) -> Result<(), TargetError> {
        let mut registers = self.registers()?;
        self.held = Some(registers);
        self.call = u64::try_from(registers.orig_rax.cast_signed()).ok();
        let is_call = self.call.is_some();
        let ends_early = is_call && is_interrupted(&registers)
            || is_call && registers.rax == negative(RESTART_BLOCK) && !self.may_resume(&registers);
        if ends_early {
            registers.rax = negative(RESTART_NO_HANDLER);
            self.set_registers(&registers)?;
            self.held = Some(registers);
        }
        Ok(())
    }

    /// False if a filter is known not to let the kernel resume the thread's call. That call is
    /// made anew then, which makes a wait with a time-out longer.
    fn may_resume(&self, registers: &user_regs_struct) -> bool {
        let Ok(Some(filters)) = Filters::of(self.pid, self.tid()) else {
            return true;
        };
        let r = registers;
        let call = Call {
            number: libc::SYS_restart_syscall,
            place: r.rip,
            arguments: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9],
        };
        filters.judge(&call) == Verdict::Made
    }

    /// Lets its filters judge no call, or each again. It ends by itself when this program dies.
    pub(crate) fn suspend_filters(&self, suspend: bool) -> Result<(), TargetError> {
        let more = if suspend { SUSPEND_SECCOMP } else { 0 };
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD.bits() | more;
        let options = ptrace::Options::from_bits_retain(options);
        ptrace::setoptions(self.tid, options)
            .map_err(|e| traced(self.pid, "suspend the filter of system calls of", e))
    }

    /// The registers of a thread that was just made to stand.
    pub(crate) fn held(&self) -> Result<user_regs_struct, TargetError> {
        self.held.map_or_else(|| self.registers(), Ok)
    }

    /// True if its system call has not ended: it is resumed.
    pub(crate) fn is_waiting(&self) -> bool {
        self.call.is_some() && self.held.is_some_and(|registers| is_resumed(&registers))
    }

    /// The system call that it was inside.
    pub(crate) fn call(&self) -> Option<u64> {
        self.call
    }

    /// Lets it go on as if it had never been stopped.
    pub(crate) fn release(self) -> Result<(), TargetError> {
        match self.let_go() {
            Ok(()) | Err(TargetError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Forgets a thread that runs on; it stays traced, and is to be stopped again.
    pub(crate) fn stay_traced(mut self) {
        self.gone = true;
    }

    /// Lets it go on.
    pub(crate) fn let_go(mut self) -> Result<(), TargetError> {
        self.detach(None)
    }

    /// Lets it go on from where it has just come to stand, as if it had not.
    pub(crate) fn let_go_at(&mut self, stop: &Stop) {
        let signal = match stop {
            Stop::Signal(signal) => Some(*signal),
            Stop::SystemCall | Stop::Event | Stop::Group => None,
        };
        // At the edge of a system call it has its result. A thread that cannot be asked is gone.
        if !matches!(stop, Stop::SystemCall) {
            let _ = self.keep_its_call();
        }
        let _ = self.detach(signal);
    }

    fn detach(&mut self, signal: Option<Signal>) -> Result<(), TargetError> {
        self.gone = true;
        match resume(libc::PTRACE_DETACH, self.tid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(traced(self.pid, "detach from", error)),
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        match self.look() {
            Ok(Some(stop)) => self.let_go_at(&stop),
            Err(TargetError::Gone(_)) => {}
            // It stands since it was last waited for, or runs, and has to stop to be let go.
            Ok(None) | Err(_) => {
                if ptrace::detach(self.tid, None).is_err() && ptrace::interrupt(self.tid).is_ok() {
                    late::note(self.pid, self.tid(), true);
                }
            }
        }
    }
}

/// A wait that ended while the thread was on its way with a call of ours.
fn unfinished(error: TargetError) -> TargetError {
    match error {
        TargetError::NotNow(text) => TargetError::Unfinished(text),
        other => other,
    }
}

/// `-errno` as a register holds it.
pub(crate) fn negative(errno: i32) -> u64 {
    i64::from(-errno).cast_unsigned()
}

/// True if the kernel resumes the call of a thread with these registers.
pub(crate) fn is_resumed(registers: &user_regs_struct) -> bool {
    RESUMED
        .iter()
        .any(|errno| registers.rax == negative(*errno))
}

/// True if the call of a thread with these registers ended with EINTR, and may be made again: what
/// `close` closes is closed already, and another one may have the number by now.
pub(crate) fn is_interrupted(registers: &user_regs_struct) -> bool {
    let is_close = registers.orig_rax == libc::SYS_close.cast_unsigned();
    registers.rax == negative(libc::EINTR) && !is_close
}

/// Makes the system call happen again, as the kernel does it for signals.
pub(crate) fn restart(registers: &mut user_regs_struct) {
    const SYSCALL_INSTRUCTION: u64 = 2;
    registers.rax = registers.orig_rax;
    registers.rip = registers.rip.wrapping_sub(SYSCALL_INSTRUCTION);
    registers.orig_rax = u64::MAX;
}
