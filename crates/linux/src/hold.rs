//! Which thread is held to make system calls for us: one whom it hurts least.

use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::TargetError;
use procfs::process::MemoryMap;

use crate::Process;
use crate::carrier::Carrier;
use crate::cost::{PATIENT, RUNNING, WORKING, cost_of};
use crate::gadgets::Gadgets;
use crate::priority::First;
use crate::proc_file::Status;
use crate::ptrace::Standing;
use crate::seccomp::{self, Filters};
use crate::seize::{interrupt, seize, wait_standing};
use crate::ticks::Ticks;
use crate::workers::is_worker;

/// How long a thread may take to stop before another one is asked.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often threads that run are looked at once more, and for how many that is quick.
const LOOKS: usize = 5;
const FEW: usize = 8;
/// How long to look for a thread that can be used.
const SEARCH: Duration = Duration::from_secs(10);

impl Process {
    /// Threads in the order in which they should be asked: those first that wait in a
    /// call which the kernel resumes by itself, those last that are running.
    fn candidates(&self) -> Result<Vec<(u8, i32)>, TargetError> {
        let tids = self.tids()?.into_iter();
        let mut tids: Vec<(u8, i32)> = tids
            .map(|tid| (self.cost(tid), tid))
            .filter(|(cost, _)| *cost != WORKING)
            .collect();
        tids.sort_unstable();
        Ok(tids)
    }

    fn cost(&self, tid: i32) -> u8 {
        let waits = self.waits_at(tid).unwrap_or_default();
        if Process::is_worker_at(&waits) {
            return WORKING;
        }
        let mut words = waits.split(' ');
        let call = words.next().and_then(|call| call.trim().parse().ok());
        cost_of(call, || self.is_socket(words.next()))
    }

    /// A socket may have a time-out, and then the kernel does not resume a call that reads
    /// it. True also where it cannot be seen what the descriptor is, the call's argument.
    fn is_socket(&self, descriptor: Option<&str>) -> bool {
        let number = descriptor.unwrap_or_default().trim_start_matches("0x");
        let number = u32::from_str_radix(number, 16).ok();
        let link = number.and_then(|number| {
            std::fs::read_link(format!("/proc/{}/fd/{number}", self.first)).ok()
        });
        link.is_none_or(|link| link.to_string_lossy().starts_with("socket:"))
    }

    /// The thread that will be held, most likely.
    pub(crate) fn likely(&self) -> Option<i32> {
        let mut first = self.first_and_others().take(FEW);
        first.find(|tid| self.cost(*tid) == PATIENT)
    }

    /// Holds a thread that waits in a call which the kernel resumes by itself, whatever
    /// becomes of who holds it; `None` if there is none that can be used and `fits`.
    pub(crate) fn hold_patient(
        &self,
        fits: &impl Fn(&Process, &Standing) -> Result<(), TargetError>,
    ) -> Result<Option<Carrier<'_>>, TargetError> {
        let (gadgets, maps) = (self.gadgets()?, self.maps()?);
        for _ in 0..LOOKS {
            let (mut seen, mut returns) = (0, false);
            // One after the other: hardly ever more than one has to be looked at.
            for tid in self.first_and_others() {
                let cost = self.cost(tid);
                (seen, returns) = (seen + 1, returns || cost == RUNNING);
                if cost != PATIENT {
                    continue;
                }
                match self.hold_this(tid, (gadgets, &maps), true, fits) {
                    Ok(carrier) => return Ok(Some(carrier)),
                    Err(error) if is_final(&error) => return Err(error),
                    Err(_) => {}
                }
            }
            // Who was let go a moment ago is on the way back into its wait.
            if !returns || seen > FEW {
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

    /// Holds one thread; if it shall be a `patient` one, the kernel alone resumes its call.
    fn hold_this(
        &self,
        tid: i32,
        (gadgets, maps): (Gadgets, &[MemoryMap]),
        patient: bool,
        fits: &impl Fn(&Process, &Standing) -> Result<(), TargetError>,
    ) -> Result<Carrier<'_>, TargetError> {
        // A filter may forbid the call with which the kernel resumes another one (see
        // `Standing::keep_its_call`).
        if self.may_carry(tid)? && patient {
            return Err(TargetError::NotNow(format!(
                "thread {tid} of process {} filters its system calls",
                self.pid
            )));
        }
        if !patient && self.is_worker(tid) {
            return Err(works_for_the_kernel(self.pid, tid));
        }
        let there = self.beside.get() == Some(tid);
        let first = (!there).then(|| First::beside(self.pid, tid));
        let ticks = Rc::new(Ticks::new());
        seize(self.pid, tid)?;
        let since = Instant::now();
        interrupt(self.pid, tid)?;
        let thread = wait_standing(self.pid, tid, PATIENCE, &ticks)?;
        if is_worker(&thread.held()?) {
            return Err(works_for_the_kernel(self.pid, tid));
        }
        fits(self, &thread)?;
        self.returning.set(thread.call().map(|_| tid));
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

fn works_for_the_kernel(pid: i32, tid: i32) -> TargetError {
    TargetError::NotNow(format!(
        "the kernel itself works in thread {tid} of process {pid}"
    ))
}

/// True if no other thread of the process will do either.
fn is_final(error: &TargetError) -> bool {
    matches!(
        error,
        TargetError::Traced { .. } | TargetError::NotPermitted { .. }
    )
}
