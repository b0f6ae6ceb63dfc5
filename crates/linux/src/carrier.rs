//! One thread of the process makes system calls for us and is itself again.

use std::ops::Range;
use std::time::{Duration, Instant};

use invivo_apply::{Protection, TargetError, Visit};
use invivo_image::LiveAddr;
use libc::user_regs_struct;
use procfs::process::{MMapPath, MemoryMap};

use crate::Process;
use crate::gadgets::{Gadgets, WayBack};
use crate::memory::Memory;
use crate::own_stack::stack_at;
use crate::priority::First;
use crate::ptrace::{RESTART_BLOCK, Standing, negative, restart};
use crate::resumed::name_resumed;
use crate::seccomp::{Filters, Verdict};
use crate::sequence::is_inside;
use crate::signal_frame::SignalFrame;

/// How long a function of the target may take that we call.
const CALL_PATIENCE: Duration = Duration::from_secs(30);
/// `MAP_FIXED_NOREPLACE`.
const NO_REPLACE: i32 = 0x10_0000;
/// `rt_sigreturn`.
const SIGRETURN: i32 = 15;
/// Bytes that a function's return takes off the stack.
const RETURN_ADDRESS: u64 = 8;
/// What `cs` is in 64-bit code.
const CODE_64: u64 = 0x33;
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
    /// True while it stands on its way out of a call of ours.
    leaves_call: bool,
    /// True while it is inside a call of ours whose end was not seen.
    inside: bool,
    /// True once the kernel no longer knows how to resume the thread's own call with a time-out:
    /// a real return from a signal makes it forget, and so does another such call.
    forgotten: bool,
    /// True while its filters judge nothing, so that a call may be left out.
    suspended: bool,
    /// Since when it has been held.
    since: Instant,
    _first: Option<First>,
}

impl<'p> Carrier<'p> {
    /// Makes a thread that stands a held one.
    pub(crate) fn new(
        process: &'p Process,
        thread: Standing,
        (gadgets, filters): (Gadgets, Option<Filters>),
        maps: &[MemoryMap],
        (since, first): (Instant, Option<First>),
    ) -> Result<Self, TargetError> {
        let mut registers = thread.held()?;
        name_resumed(&process.memory, &mut registers);
        // In 32-bit code (`cs` tells), or where the program itself gets its system calls, as Wine's
        // do, a call of ours would be another one, or end the process.
        if registers.cs != CODE_64 || thread.dispatches_calls() {
            return Err(TargetError::NotNow(format!(
                "thread {} runs 32-bit code, or is told of its own system calls",
                thread.tid()
            )));
        }
        if thread.call().is_none() && is_inside(&thread, &process.memory, registers.rip) {
            return Err(TargetError::NotNow(format!(
                "thread {} is inside a restartable sequence",
                thread.tid()
            )));
        }
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
            leaves_call: false,
            inside: false,
            forgotten: false,
            suspended: false,
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
        if !self.away {
            self.begin_way_back(&registers)?;
        }
        self.leaves_call = false;
        self.inside = true;
        self.thread.set_registers(&registers)
    }

    /// Leads the thread to the frame, which brings it back without any call of ours.
    ///
    /// Only a thread that blocks every signal makes calls: that is how a later tool tells that
    /// one is on its way for a tool that died, and waits. Were the first call set before the
    /// mask, and this program killed in between, the next tool could look at the mappings
    /// just before `mremap` changes them.
    fn begin_way_back(&mut self, registers: &user_regs_struct) -> Result<(), TargetError> {
        let registers = user_regs_struct {
            rip: self.gadgets.behind_a_call(),
            ..*registers
        };
        self.thread.set_registers(&registers)?;
        self.away = true;
        // From here on the frame leads back, and it restores the mask too. A handler
        // that ran in between could leave the stack and never come back.
        self.thread.set_signal_mask(u64::MAX)
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
        self.inside = false;
        self.leaves_call = true;
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

    /// Has the thread, which is about to call `rt_sigreturn`, not make that call, where its own call
    /// has a time-out: the kernel would forget how much of it is left. Its registers are set back
    /// in the end; should nobody live to do so, it comes to the same call once more.
    fn leave_out_return(&mut self, at: user_regs_struct) -> Result<(), TargetError> {
        if self.registers.rax != negative(RESTART_BLOCK) || self.forgotten {
            return Ok(());
        }
        let without = user_regs_struct {
            orig_rax: u64::MAX,
            rip: self.gadgets.first_step_back(),
            rsp: self.frame.at + RETURN_ADDRESS,
            ..at
        };
        let filters = self.filters.as_ref();
        match filters.map(|filters| filters.judge_none(&without)) {
            None | Some(Verdict::Made) => {}
            Some(Verdict::Fails) if self.thread.suspend_filters(true).is_ok() => {
                self.suspended = true;
            }
            // Where that cannot be, the call is made, and the thread's own begins anew. Filters that would
            // end the thread are not suspended: should this program die meanwhile, they judge again.
            Some(_) => {
                self.forgotten = true;
                return Ok(());
            }
        }
        self.thread.set_registers(&without)
    }

    /// Lets the thread go on as if nothing had happened. Returns how long it was held.
    pub(crate) fn leave(mut self) -> Result<Duration, TargetError> {
        if self.inside {
            // It may hold a lock there, so that it is not taken out: it comes back by the frame
            // when the call has ended.
            return Err(TargetError::Unfinished(format!(
                "thread {} of process {} is still inside a call that was made for the patch",
                self.thread.tid(),
                self.thread.pid()
            )));
        }
        if self.away {
            // Who stands on the way out of a call is where it can be let go: the kernel looks for
            // signals, and resumes the thread's own call, on the same way for whoever was traced
            // (`__ptrace_unlink` in kernel/ptrace.c).
            if !self.leaves_call {
                self.thread.run_to_edge(CALL_PATIENCE)?;
            }
            if self.suspended {
                self.thread.suspend_filters(false)?;
            }
            // The mask first: should this program die between the two, the frame is
            // still the way back.
            self.thread.set_signal_mask(self.mask)?;
        }
        let mut registers = self.registers;
        // What the kernel cannot resume is made anew.
        if self.forgotten && registers.rax == negative(RESTART_BLOCK) {
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
    let fits = stack_at(maps, rsp).is_some_and(|(map, guarded)| {
        let main = matches!(map.pathname, MMapPath::Stack);
        // The main stack grows when it is used.
        main || (guarded && frame.at >= map.address.0.saturating_add(ROOM))
    });
    if fits {
        return Ok(());
    }
    Err(TargetError::NotNow(
        "a thread's stack has no room that is known to be free".to_owned(),
    ))
}

/// True if a thread with these registers, at the edge of a call that a function makes which was
/// called in it, has the kernel forget how to resume the thread's own call: a sleep does as it
/// begins, a return from a signal does, and so does another wait that is interrupted.
fn makes_forget(registers: &user_regs_struct) -> bool {
    const FORGETTING: [i64; 3] = [
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_rt_sigreturn,
    ];
    let forgets = |call: &i64| registers.orig_rax == call.cast_unsigned();
    registers.rax == negative(RESTART_BLOCK) || FORGETTING.iter().any(forgets)
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
        // The journal names the place before the pages are there. It was free when it was chosen, and
        // fixed flags would overwrite what another thread has put there since: without them the
        // kernel takes it only if it is free, or else another one.
        let flags = libc::MREMAP_MAYMOVE | DONT_UNMAP;
        let call = [at, size, size, flag(flags), to.0, 0];
        let moved = self.system_call("mremap of text", libc::SYS_mremap, call)?;
        if moved == to.0 {
            return Ok(());
        }
        // No journal tells of that place. What shows now is what the file holds: nothing is lost with what was
        // moved, which shows the same, or was to be given back.
        let end = LiveAddr(moved.saturating_add(size));
        self.unmap(LiveAddr(moved)..end)?;
        Err(TargetError::System {
            what: format!(
                "text of process {} cannot be moved to {to}",
                self.thread.pid()
            ),
            source: std::io::ErrorKind::AddrInUse.into(),
        })
    }

    fn lower(&mut self, from: LiveAddr, range: Range<LiveAddr>) -> Result<(), TargetError> {
        let (at, size) = arguments(&range);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let call = [from.0, size, size, flag(flags), at, 0];
        self.system_call("mremap of text", libc::SYS_mremap, call)
            .map(|_| ())
    }

    fn read(&mut self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        self.memory.read(at, bytes)
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
            let stops = self.thread.run_to_system_call(CALL_PATIENCE);
            stops.map_err(|error| match error {
                TargetError::Unfinished(_) => TargetError::Unfinished(format!(
                    "a function that was called in thread {} of process {} does not return",
                    self.thread.tid(),
                    self.thread.pid()
                )),
                other => other,
            })?;
            let registers = self.thread.registers()?;
            // The function's own return leads to the restorer, whose call we stop at.
            if registers.orig_rax == flag(SIGRETURN) && registers.rsp == self.frame.frame_end() {
                self.inside = false;
                return self.leave_out_return(registers);
            }
            self.forgotten |= makes_forget(&registers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use invivo_apply::{Options, Target};
    use procfs::process::MMPermissions;

    use super::*;
    use crate::Access;

    const PAGE: usize = 4096;

    #[test]
    fn a_sleep_in_a_function_makes_the_kernel_forget_the_threads_own() {
        let at = |call: i64, result: u64| {
            // SAFETY: registers are numbers, for which zero is a value.
            let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
            (registers.orig_rax, registers.rax) = (call.cast_unsigned(), result);
            makes_forget(&registers)
        };
        assert!(at(libc::SYS_nanosleep, 0));
        assert!(at(libc::SYS_rt_sigreturn, 0));
        assert!(at(libc::SYS_futex, negative(RESTART_BLOCK)));
        assert!(!at(libc::SYS_futex, 0));
        assert!(!at(libc::SYS_mmap, 0x7f00_0000_0000));
    }

    /// Memory that a program mapped while the tool was choosing where to move its text to.
    fn taken() -> &'static [u8] {
        Vec::leak(vec![7; 3 * PAGE])
    }

    #[test]
    fn text_is_moved_to_no_place_where_something_is() {
        // SAFETY: the call takes two numbers. Whoever a deputy is may trace this process then.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
        let (stay, wait) = channel::<()>();
        let waits = std::thread::spawn(move || wait.recv());
        let options = Options {
            consistency: invivo_apply::Consistency::Entry,
            timeout: Duration::from_secs(30),
            search: None,
            applied_by: String::new(),
            interrupted: None,
            waiting: None,
            steps: None,
        };
        let own = std::process::id().cast_signed();
        let mut process = Process::open(own, Access::Write(&options)).unwrap();
        let exe = process.exe().unwrap();
        let maps = process.maps().unwrap();
        let is_text = |map: &&MemoryMap| {
            map.perms.contains(MMPermissions::EXECUTE)
                && map.pathname == MMapPath::Path(exe.clone())
        };
        let text = LiveAddr(maps.iter().find(is_text).unwrap().address.0);
        let page = text..LiveAddr(text.0 + PAGE as u64);
        let before = process.memory.read_some(text, PAGE);
        let memory = taken();
        let place = LiveAddr((memory.as_ptr() as u64).next_multiple_of(PAGE as u64));
        let moved = process.visit(&mut |visit| visit.lift(page.clone(), place));
        assert!(moved.is_err());
        assert!(memory.iter().all(|byte| *byte == 7));
        assert_eq!(process.memory.read_some(text, PAGE), before);
        drop(stay);
        assert!(waits.join().unwrap().is_err());
    }
}
