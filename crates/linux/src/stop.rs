//! All threads stand for a moment.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::{Stack, Stopped, TargetError, Thread};
use invivo_image::LiveAddr;
use procfs::process::MemoryMap;

use crate::Process;
use crate::deputy::by_deputy;
use crate::late;
use crate::own_stack::{Live, is_own_stack};
use crate::priority::First;
use crate::ptrace::{Standing, Stop};
use crate::seize::{interrupt, seize, wait_standing};
use crate::ticks::Ticks;
use crate::unwind::Unwinder;

/// How long a thread may take to stop.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long threads may run on to their next system call.
const RUN_ON: Duration = Duration::from_millis(20);
/// How long one that is there waits for the others.
const TOGETHER: Duration = Duration::from_millis(1);

/// Calls that end with EINTR when their thread is stopped, some of them only with a time-out.
const NOT_RESUMED: [i64; 14] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_getevents,
    libc::SYS_io_uring_enter,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
];
/// Calls in which a thread waits for a child, and cannot be made to stand.
const CREATING: [i64; 3] = [libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3];

/// Every thread of a process, standing.
pub(crate) struct AllStopped<'p> {
    process: &'p Process,
    unwinder: &'p mut Unwinder,
    threads: Vec<Standing>,
    /// Its mappings before it stood.
    maps: Rc<Vec<MemoryMap>>,
    /// Where the stacks of its threads are, once they were looked at.
    live: Vec<Live>,
    /// Since when the first of them stands.
    since: Option<Instant>,
    _first: First,
}

impl<'p> AllStopped<'p> {
    /// Stops all threads, those too that are born meanwhile; the threads `late` may
    /// reach their next system call before.
    pub(crate) fn new(
        process: &'p Process,
        unwinder: &'p mut Unwinder,
        late: &[i32],
    ) -> Result<Self, TargetError> {
        let maps = process.maps()?;
        let ticks = Rc::new(Ticks::new());
        let (threads, since) = process.at_system_calls(late, &ticks);
        let mut known: BTreeSet<i32> = threads.iter().map(Standing::tid).collect();
        let mut all = AllStopped {
            process,
            unwinder,
            threads,
            maps,
            live: Vec::new(),
            since,
            _first: First::new(),
        };
        loop {
            let mut new: Vec<i32> = process
                .tids()?
                .into_iter()
                .filter(|tid| known.insert(*tid))
                .collect();
            if new.is_empty() {
                break;
            }
            let mut refused = None;
            let mut asked = |result: Result<(), TargetError>, tid: i32| match result {
                Ok(()) => true,
                Err(TargetError::Gone(_)) => false,
                Err(TargetError::NotNow(_)) if !process.has_thread(tid) => false,
                Err(error) => {
                    refused = Some(error);
                    false
                }
            };
            new.retain(|tid| asked(seize(process.pid, *tid), *tid));
            // Whose call the kernel will not resume is held first, and one by one: should
            // this program die before the next line, that call ends early.
            let mut creates = None;
            let (brief, mut new): (Vec<i32>, Vec<i32>) = new.into_iter().partition(|tid| {
                let call = process.waits_in(*tid);
                creates = creates.or(call.filter(|call| CREATING.contains(call)).and(Some(*tid)));
                call.is_some_and(|call| NOT_RESUMED.contains(&call))
            });
            if let Some(tid) = creates {
                // All others would stand until that ends, or this look is given up.
                all.resume()?;
                for tid in brief.into_iter().chain(new) {
                    late::note(process.pid, tid, false);
                }
                return Err(TargetError::NotNow(format!(
                    "thread {tid} of process {} waits for a child that shares its memory (vfork)",
                    process.pid
                )));
            }
            let begun = *all.since.get_or_insert_with(Instant::now);
            let left = || PATIENCE.saturating_sub(begun.elapsed());
            let mut standing = Vec::new();
            for tid in brief {
                if asked(interrupt(process.pid, tid), tid) {
                    standing.push(wait_standing(process.pid, tid, left(), &ticks));
                }
            }
            // All others are asked before any is waited for.
            new.retain(|tid| asked(interrupt(process.pid, *tid), *tid));
            let others = new.into_iter();
            standing.extend(others.map(|tid| wait_standing(process.pid, tid, left(), &ticks)));
            for thread in standing {
                match thread {
                    Ok(thread) => all.threads.push(thread),
                    Err(TargetError::Gone(_)) => {}
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            if let Some(error) = refused {
                all.resume()?;
                return Err(error);
            }
            // Nobody is left to start another one.
            if process.thread_count() == Some(all.threads.len()) {
                break;
            }
        }
        Ok(all)
    }

    /// Lets all threads go on as if nothing had happened.
    pub(crate) fn resume(self) -> Result<(), TargetError> {
        let mut failure = None;
        let mut inside = self.threads.iter().filter(|thread| thread.call().is_some());
        self.process.returning.set(inside.next().map(Standing::tid));
        for thread in self.threads {
            if let Err(error) = thread.release() {
                failure = Some(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Stopped for AllStopped<'_> {
    fn stacks(&mut self) -> Result<Vec<Stack>, TargetError> {
        let mut stacks = Vec::new();
        let handlers = self.process.has_handlers();
        self.live.clear();
        for standing in &self.threads {
            let registers = standing.registers()?;
            let walk = self.unwinder.walk(&self.process.memory, &registers);
            self.live.push(Live {
                tid: standing.tid(),
                main: standing.tid() == self.process.pid,
                rsp: registers.rsp,
                fs_base: registers.fs_base,
                end: walk.end,
            });
            // Names can be asked for when all run again.
            let thread = Thread {
                tid: standing.tid(),
                name: String::new(),
            };
            stacks.push(Stack {
                thread,
                frames: walk.frames,
                unknown: walk.unknown,
                running: standing.call().is_none(),
                handlers,
            });
        }
        Ok(stacks)
    }

    fn suspended(
        &mut self,
        ranges: &[(String, Range<LiveAddr>)],
    ) -> Result<Option<(Option<String>, String)>, TargetError> {
        if self.live.is_empty() {
            self.stacks()?;
        }
        let foreign = |maps: &[MemoryMap]| {
            let mut live = self.live.iter();
            live.find(|thread| !is_own_stack(maps, thread))
                .map(|thread| thread.tid)
        };
        let mut found = foreign(&self.maps);
        if found.is_some() {
            // Its stack may be newer than what was read before the stop.
            self.process.forget_maps();
            found = foreign(&self.process.maps()?);
        }
        if let Some(tid) = found {
            let why = format!(
                "thread {tid} runs on a stack that is not its own, and may return elsewhere on its own"
            );
            return Ok(Some((None, why)));
        }
        let known = self.process.coroutines.borrow().clone();
        let known = match known {
            Some(known) => known,
            None => self.process.find_coroutines()?,
        };
        let Some(switcher) = &known.switcher else {
            return Ok(None);
        };
        if let Some(why) = &known.too_large {
            let why = format!("{switcher} switches stacks, and {why}");
            return Ok(Some((None, why)));
        }
        let found = self
            .process
            .find_suspended(&self.live, ranges, &known.ends)?;
        Ok(found.map(|(inside, why)| (inside, format!("{why} ({switcher} switches stacks)"))))
    }

    fn finds(&mut self, range: &Range<LiveAddr>) -> Result<Option<String>, TargetError> {
        self.process.find_address(&self.threads, range)
    }

    fn read(&mut self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        self.process.memory.read(at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        match self.threads.first() {
            Some(thread) => self.process.memory.write_by(thread, at, bytes),
            None => self.process.memory.write(at, bytes),
        }
    }
}

impl Process {
    /// Runs `during` while all threads stand; tells how long they did.
    pub(crate) fn while_stopped(
        &self,
        late: &[i32],
        during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        // Tables are read before anybody stops.
        let mut unwinder = Unwinder::new(self)?;
        by_deputy(|| {
            let mut all = AllStopped::new(self, &mut unwinder, late)?;
            let since = all.since.unwrap_or_else(Instant::now);
            let result = during(&mut all);
            all.resume()?;
            result.map(|()| since.elapsed())
        })
    }

    /// Lets running threads reach their next system call, and holds them there, or where
    /// they are when the time is over. Who is gone or does not stop is left out.
    fn at_system_calls(&self, tids: &[i32], ticks: &Rc<Ticks>) -> (Vec<Standing>, Option<Instant>) {
        let begin = |tid: &i32| {
            seize(self.pid, *tid)?;
            interrupt(self.pid, *tid)?;
            let thread = wait_standing(self.pid, *tid, PATIENCE, ticks)?;
            if thread.call().is_some() {
                thread.release()?;
                return Ok(None);
            }
            thread.run_on(None)?;
            Ok::<_, TargetError>(Some(thread))
        };
        let mut running: Vec<Standing> = tids.iter().flat_map(|t| begin(t).ok()?).collect();
        let mut there: Vec<Standing> = Vec::new();
        let mut end = Instant::now() + RUN_ON;
        let mut since = None;
        while !running.is_empty() && Instant::now() < end {
            for mut thread in std::mem::take(&mut running) {
                match thread.look() {
                    Ok(None) => running.push(thread),
                    Ok(Some(Stop::SystemCall | Stop::Group)) => {
                        let first = *since.get_or_insert_with(Instant::now);
                        end = end.min(first + TOGETHER);
                        there.push(thread);
                    }
                    // The signal is the thread's own.
                    Ok(Some(Stop::Signal(signal))) => {
                        if thread.run_on(Some(signal)).is_ok() {
                            running.push(thread);
                        }
                    }
                    Ok(Some(Stop::Event)) => {
                        if thread.run_on(None).is_ok() {
                            running.push(thread);
                        }
                    }
                    Err(_) => {}
                }
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        // The others are stopped as all threads are.
        for thread in running {
            late::note(self.pid, thread.tid(), false);
            thread.stay_traced();
        }
        (there, since)
    }
}
