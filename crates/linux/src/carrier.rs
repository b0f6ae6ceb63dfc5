//! One thread of the process makes system calls for us and is itself again.

use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::{Protection, TargetError, Visit};
use invivo_image::LiveAddr;
use libc::user_regs_struct;
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::Process;
use crate::gadgets::{Gadgets, WayBack};
use crate::memory::Memory;
use crate::priority::First;
use crate::proc_file::Status;
use crate::ptrace::{RESTART_BLOCK, Standing, interrupt, negative, restart, seize, wait_standing};
use crate::seccomp::{self, Filters};
use crate::signal_frame::SignalFrame;
use crate::ticks::Ticks;

/// How long a thread may take to stop before another one is asked.
const PATIENCE: Duration = Duration::from_secs(1);
/// What it costs to hold a thread whose call the kernel resumes by itself.
const PATIENT: u8 = 0;
/// The same for one that runs.
const RUNNING: u8 = 2;
/// How often threads that run are looked at once more, and for how many that is quick.
const LOOKS: usize = 5;
const FEW: usize = 8;
/// How long a function of the target may take that we call.
const CALL_PATIENCE: Duration = Duration::from_secs(30);
/// How long to look for a thread that can be used.
const SEARCH: Duration = Duration::from_secs(10);
/// `MAP_FIXED_NOREPLACE`.
const NO_REPLACE: i32 = 0x10_0000;
/// `rt_sigreturn`.
const SIGRETURN: i32 = 15;
/// `MREMAP_DONTUNMAP`.
const DONT_UNMAP: i32 = 4;

/// A held thread.
pub(crate) struct Carrier<'p> {
    memory: &'p Memory,
    thread: Standing,
    registers: user_regs_struct,
    mask: u64,
    frame: SignalFrame,
    gadgets: Gadgets,
    /// What judges its calls, if anything does.
    filters: Option<Filters>,
    /// True once the thread's registers point to the frame.
    away: bool,
    /// True once the frame was used up by a function's return.
    returned: bool,
    /// Since when it has been held.
    since: Instant,
    _first: First,
}

impl Process {
    /// Threads in the order in which they should be asked: those first that wait in a
    /// call which the kernel resumes by itself, those last that are running.
    fn candidates(&self) -> Result<Vec<(u8, i32)>, TargetError> {
        let mut tids: Vec<(u8, i32)> = self
            .tids()?
            .into_iter()
            .map(|tid| (self.cost(tid), tid))
            .collect();
        tids.sort_unstable();
        Ok(tids)
    }

    fn cost(&self, tid: i32) -> u8 {
        let waits = self.waits_at(tid).unwrap_or_default();
        let mut words = waits.split(' ');
        match words.next().and_then(|call| call.trim().parse().ok()) {
            Some(libc::SYS_read) if !self.is_socket(words.next()) => PATIENT,
            Some(
                libc::SYS_futex
                | libc::SYS_poll
                | libc::SYS_ppoll
                | libc::SYS_select
                | libc::SYS_pselect6
                | libc::SYS_nanosleep
                | libc::SYS_clock_nanosleep
                | libc::SYS_wait4
                | libc::SYS_waitid
                | libc::SYS_pause,
            ) => PATIENT,
            Some(libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3) => 3,
            Some(_) => 1,
            None => RUNNING,
        }
    }

    /// A socket may have a time-out, and then the kernel does not resume a call that reads
    /// it. True also where it cannot be seen what the descriptor is, the call's argument.
    fn is_socket(&self, descriptor: Option<&str>) -> bool {
        let number = descriptor.unwrap_or_default().trim_start_matches("0x");
        let number = u32::from_str_radix(number, 16).ok();
        let link = number
            .and_then(|number| std::fs::read_link(format!("/proc/{}/fd/{number}", self.pid)).ok());
        link.is_none_or(|link| link.to_string_lossy().starts_with("socket:"))
    }

    /// Holds a thread that waits in a call which the kernel resumes by itself, whatever
    /// becomes of this program; `None` if there is none that can be used and `fits`.
    pub(crate) fn hold_patient(
        &self,
        fits: &impl Fn(&Process, &Standing) -> Result<(), TargetError>,
    ) -> Result<Option<Carrier<'_>>, TargetError> {
        let (gadgets, maps) = (self.gadgets()?, self.maps()?);
        for _ in 0..LOOKS {
            let candidates = self.candidates()?;
            for (_, tid) in candidates.iter().filter(|one| one.0 == PATIENT) {
                match self.hold_this(*tid, (gadgets, &maps), true, fits) {
                    Ok(carrier) => return Ok(Some(carrier)),
                    Err(error) if is_final(&error) => return Err(error),
                    Err(_) => {}
                }
            }
            // Who was let go a moment ago is on the way back into its wait.
            let returns = candidates.iter().any(|one| one.0 == RUNNING);
            if !returns || candidates.len() > FEW {
                break;
            }
            std::thread::yield_now();
        }
        Ok(None)
    }

    /// Holds the first thread that can be used and that `fits`.
    pub(crate) fn hold(
        &self,
        fits: &impl Fn(&Process, &Standing) -> Result<(), TargetError>,
    ) -> Result<Carrier<'_>, TargetError> {
        let gadgets = self.gadgets()?;
        let deadline = Instant::now() + SEARCH;
        loop {
            match self.hold_one(gadgets, fits) {
                // Threads may all be busy for a moment, or get no processor.
                Err(TargetError::NotNow(_)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => return other,
            }
        }
    }

    fn hold_one(
        &self,
        gadgets: Gadgets,
        fits: &impl Fn(&Process, &Standing) -> Result<(), TargetError>,
    ) -> Result<Carrier<'_>, TargetError> {
        let mut failure = TargetError::Gone(self.pid);
        let maps = self.maps()?;
        for (_, tid) in self.candidates()? {
            match self.hold_this(tid, (gadgets, &maps), false, fits) {
                Ok(carrier) => return Ok(carrier),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Holds this thread, if it can be used and `fits`.
    pub(crate) fn hold_that(
        &self,
        tid: i32,
        fits: &impl Fn(&Process, &Standing) -> Result<(), TargetError>,
    ) -> Result<Carrier<'_>, TargetError> {
        self.hold_this(tid, (self.gadgets()?, &self.maps()?), false, fits)
    }

    /// True if a filter judges the thread's system calls, or that cannot be seen.
    pub(crate) fn is_filtered(&self, tid: i32) -> bool {
        Status::of_thread(self.pid, tid).field("Seccomp:") != Some("0")
    }

    /// Holds one thread; if it shall be a `patient` one, it is as before also when
    /// this program dies the next moment.
    fn hold_this(
        &self,
        tid: i32,
        (gadgets, maps): (Gadgets, &[MemoryMap]),
        patient: bool,
        fits: &impl Fn(&Process, &Standing) -> Result<(), TargetError>,
    ) -> Result<Carrier<'_>, TargetError> {
        // A filter may forbid the call with which the kernel resumes another one; who sees to
        // that must not die (see `Standing::keep_its_call`).
        if self.may_carry(tid)? && patient {
            return Err(TargetError::NotNow(format!(
                "thread {tid} of process {} filters its system calls",
                self.pid
            )));
        }
        let first = First::beside(self.pid, tid);
        let ticks = Rc::new(Ticks::new());
        seize(self.pid, tid)?;
        let since = Instant::now();
        interrupt(self.pid, tid)?;
        let thread = wait_standing(self.pid, tid, PATIENCE, &ticks)?;
        fits(self, &thread)?;
        // Asked of the thread that stands: another one may have given it a filter meanwhile.
        let filters = if seccomp::can_be_read() {
            Filters::of(self.pid, tid)?
        } else {
            None
        };
        Carrier::new(self, thread, (gadgets, filters), maps, (since, first))
    }

    /// `Ok` unless the thread would be ended by any call that it did not make itself; true if a
    /// filter judges its calls, and so ours too.
    ///
    /// A shadow stack holds no return address for the way back.
    fn may_carry(&self, tid: i32) -> Result<bool, TargetError> {
        let status = Status::of_thread(self.pid, tid);
        let field = |name: &str| status.field(name).unwrap_or_default();
        let (filtered, readable) = (field("Seccomp:") == "2", seccomp::can_be_read());
        let why = if field("Seccomp:") == "1" {
            "may only read, write and exit (seccomp, strict mode)"
        } else if field("x86_Thread_features:").contains("shstk") {
            "has a shadow stack"
        } else if filtered && !readable {
            // It is not even stopped: the filter may forbid what resumes its call.
            return Err(seccomp::unreadable(self.pid));
        } else {
            return Ok(filtered);
        };
        Err(TargetError::Unsupported(format!(
            "thread {tid} of process {} {why}; a call made for the patch could end it",
            self.pid
        )))
    }
}

/// True if no other thread of the process will do either.
fn is_final(error: &TargetError) -> bool {
    matches!(
        error,
        TargetError::Traced { .. } | TargetError::NotPermitted { .. }
    )
}

impl<'p> Carrier<'p> {
    fn new(
        process: &'p Process,
        thread: Standing,
        (gadgets, filters): (Gadgets, Option<Filters>),
        maps: &[MemoryMap],
        (since, first): (Instant, First),
    ) -> Result<Self, TargetError> {
        let registers = thread.registers()?;
        let mask = thread.signal_mask()?;
        let extended = thread.extended_state()?;
        let way_back = match gadgets.way_back {
            WayBack::Restorer(at, _) => vec![at],
            WayBack::PopRax(at) => vec![at, flag(SIGRETURN), gadgets.syscall],
        };
        let frame = SignalFrame::new(&registers, &extended, mask, &way_back);
        let frame = frame.ok_or_else(|| {
            TargetError::NotNow(format!(
                "thread {} has a state that cannot be kept",
                thread.tid()
            ))
        })?;
        is_thread_stack(maps, &frame, registers.rsp)?;
        let at = LiveAddr(frame.at);
        process.memory.write_by(&thread, at, &frame.bytes)?;
        let memory = &process.memory;
        Ok(Carrier {
            memory,
            thread,
            registers,
            mask,
            frame,
            gadgets,
            filters,
            away: false,
            returned: false,
            since,
            _first: first,
        })
    }

    fn start(&mut self, rip: u64, rax: u64, arguments: [u64; 6]) -> Result<(), TargetError> {
        let mut registers = self.registers;
        registers.orig_rax = u64::MAX;
        registers.rip = rip;
        registers.rsp = self.frame.at;
        registers.rax = rax;
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = arguments;
        // Neither a direction flag nor a trap flag of the thread may reach the call.
        registers.eflags &= !0x500;
        self.thread.set_registers(&registers)?;
        if !self.away {
            self.away = true;
            // From here on the frame leads back, and it restores the mask too. A handler
            // that ran in between could leave the stack and never come back.
            self.thread.set_signal_mask(u64::MAX)?;
        }
        Ok(())
    }

    fn system_call(
        &mut self,
        what: &str,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<u64, TargetError> {
        let suspended = match &self.filters {
            Some(filters) => filters.permit(&self.thread, &self.gadgets, number, arguments)?,
            None => false,
        };
        if suspended {
            self.thread.suspend_filters(true)?;
        }
        // The registers' true meaning is in the frame, so each call may begin anew.
        self.start(self.gadgets.syscall, number.cast_unsigned(), arguments)?;
        // Under load the thread may get no processor for long, but it will make the call.
        self.thread.run_to_system_call(CALL_PATIENCE)?;
        self.thread.run_to_system_call(CALL_PATIENCE)?;
        if suspended {
            self.thread.suspend_filters(false)?;
        }
        let result = self.thread.registers()?.rax.cast_signed();
        if (-4095..0).contains(&result) {
            let errno = i32::try_from(-result).unwrap_or(0);
            let source = std::io::Error::from_raw_os_error(errno);
            let what = format!("{what} in process {}", self.thread.pid());
            return Err(TargetError::System { what, source });
        }
        Ok(result.cast_unsigned())
    }

    /// Lets the thread go on as if nothing had happened. Returns how long it was held.
    pub(crate) fn leave(mut self) -> Result<Duration, TargetError> {
        if self.away {
            self.thread.run_to_edge(CALL_PATIENCE)?;
            // The mask first: should this program die between the two, the frame is
            // still the way back.
            self.thread.set_signal_mask(self.mask)?;
        }
        let mut registers = self.thread.way_on(&self.registers);
        // A real return from a signal makes the kernel forget how to resume a call with
        // a time-out, so that call is made anew.
        if self.returned && registers.rax == negative(RESTART_BLOCK) {
            restart(&mut registers);
        }
        self.thread.set_registers(&registers)?;
        self.thread.let_go()?;
        Ok(self.since.elapsed())
    }
}

/// `Ok` if there is room below `rsp` that belongs to the thread's stack and to nothing
/// else: the main thread's, or one above a guard page. A stack that a program carved out
/// of other memory (a coroutine's, an alternate one) may have a neighbour right below.
fn is_thread_stack(maps: &[MemoryMap], frame: &SignalFrame, rsp: u64) -> Result<(), TargetError> {
    /// What a function of the runtime may need below the frame.
    const ROOM: u64 = 64 << 10;
    let index = maps.partition_point(|map| map.address.1 <= rsp);
    let stack = maps.get(index).filter(|map| map.address.0 <= rsp);
    let guarded = |map: &MemoryMap| {
        let below = index.checked_sub(1).and_then(|below| maps.get(below));
        below.is_some_and(|below| {
            let open = MMPermissions::READ | MMPermissions::WRITE | MMPermissions::EXECUTE;
            below.address.1 == map.address.0 && !below.perms.intersects(open)
        })
    };
    let fits = stack.is_some_and(|map| {
        let main = matches!(map.pathname, MMapPath::Stack);
        // The main stack grows when it is used.
        main || (guarded(map) && frame.at >= map.address.0.saturating_add(ROOM))
    });
    if fits {
        return Ok(());
    }
    Err(TargetError::NotNow(
        "a thread's stack has no room that is known to be free".to_owned(),
    ))
}

fn arguments(range: &Range<LiveAddr>) -> (u64, u64) {
    (range.start.0, range.end.0.saturating_sub(range.start.0))
}

/// A flag of the kernel as an argument.
fn flag(value: i32) -> u64 {
    u64::try_from(value).expect("flags are not negative")
}

impl Visit for Carrier<'_> {
    fn map(&mut self, range: Range<LiveAddr>, protection: Protection) -> Result<(), TargetError> {
        let (at, size) = arguments(&range);
        let protection = match protection {
            Protection::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
            Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | NO_REPLACE;
        let call = [at, size, flag(protection), flag(flags), u64::MAX, 0];
        let made = self.system_call("mmap", libc::SYS_mmap, call)?;
        if made != at {
            // A kernel without MAP_FIXED_NOREPLACE takes the address as a hint.
            self.system_call("munmap", libc::SYS_munmap, [made, size, 0, 0, 0, 0])?;
            return Err(TargetError::NotNow(format!(
                "the memory at {at:#x} is in use"
            )));
        }
        Ok(())
    }

    fn unmap(&mut self, range: Range<LiveAddr>) -> Result<(), TargetError> {
        let (at, size) = arguments(&range);
        self.system_call("munmap", libc::SYS_munmap, [at, size, 0, 0, 0, 0])
            .map(|_| ())
    }

    fn lift(&mut self, range: Range<LiveAddr>, to: LiveAddr) -> Result<(), TargetError> {
        let (at, size) = arguments(&range);
        // Fixed, so that the journal can name the place before the pages are there.
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | DONT_UNMAP;
        let call = [at, size, size, flag(flags), to.0, 0];
        self.system_call("mremap of text", libc::SYS_mremap, call)
            .map(|_| ())
    }

    fn lower(&mut self, from: LiveAddr, range: Range<LiveAddr>) -> Result<(), TargetError> {
        let (at, size) = arguments(&range);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let call = [from.0, size, size, flag(flags), at, 0];
        self.system_call("mremap of text", libc::SYS_mremap, call)
            .map(|_| ())
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.memory.write_by(&self.thread, at, bytes)
    }

    fn call(&mut self, function: LiveAddr, arguments: [u64; 2]) -> Result<(), TargetError> {
        let [first, second] = arguments;
        if let Some(filters) = &self.filters {
            filters.permit_function(&self.thread, &self.gadgets, [first, second])?;
        }
        self.start(function.0, 0, [first, second, 0, 0, 0, 0])?;
        loop {
            self.thread.run_to_system_call(CALL_PATIENCE)?;
            let registers = self.thread.registers()?;
            // The function's own return leads to the restorer, whose call we stop at.
            if registers.orig_rax == flag(SIGRETURN) && registers.rsp == self.frame.frame_end() {
                self.returned = true;
                return Ok(());
            }
        }
    }
}
