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
use crate::ptrace::Standing;
use crate::seize::{interrupt, is_dead, seize};
use crate::slow::Waiting;
use crate::ticks::Ticks;
use crate::unwind::Unwinder;
use crate::workers::is_worker;

/// How long a thread may take to stop while nobody stands for it, and how often it is looked at.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_micros(200);

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
    /// How many threads there are in which the kernel works; they are left alone.
    workers: usize,
    _first: First,
}

impl<'p> AllStopped<'p> {
    /// Stops all threads, those too that are born meanwhile; the threads `leaving` may
    /// reach their next system call before.
    pub(crate) fn new(
        process: &'p Process,
        unwinder: &'p mut Unwinder,
        leaving: &[i32],
    ) -> Result<Self, TargetError> {
        let maps = process.maps()?;
        let mut all = AllStopped {
            process,
            unwinder,
            threads: Vec::new(),
            maps,
            live: Vec::new(),
            since: None,
            workers: 0,
            _first: First::new(),
        };
        match all.stop(leaving) {
            Ok(()) => Ok(all),
            Err(error) => Err(all.give_up(error)),
        }
    }

    fn stop(&mut self, leaving: &[i32]) -> Result<(), TargetError> {
        let process = self.process;
        let ticks = Rc::new(Ticks::new());
        let mut slow = process.slow.threads(|tid| process.has_thread(tid));
        slow.retain(|tid| !leaving.contains(tid));
        self.stop_slow(&slow, &ticks)?;
        let (threads, since) = process.at_system_calls(leaving, self.since, &ticks);
        self.threads.extend(threads);
        self.since = self.since.or(since);
        let mut known: BTreeSet<i32> = self.threads.iter().map(Standing::tid).collect();
        loop {
            let new = process.tids()?.into_iter();
            let new: Vec<i32> = new.filter(|tid| known.insert(*tid)).collect();
            if new.is_empty() {
                return Ok(());
            }
            self.stop_these(new, &ticks)?;
            // Nobody is left to start another one. Threads of the kernel are not held: one of them that
            // has ended since would make room in the count for one of the program that was not seen.
            let alone = self.workers == 0;
            if alone && process.thread_count() == Some(self.threads.len()) {
                return Ok(());
            }
        }
    }

    fn stop_these(&mut self, new: Vec<i32>, ticks: &Rc<Ticks>) -> Result<(), TargetError> {
        let process = self.process;
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
        // Whose call the kernel will not resume is held first, and one by one: should
        // this program die before the next line, that call ends early.
        let (mut brief, mut others, mut creates) = (Vec::new(), Vec::new(), None);
        for tid in new {
            let Some(call) = process.call_of(tid) else {
                // One that has ended shows no stack either.
                self.workers += usize::from(!is_dead(tid));
                continue;
            };
            if asked(seize(process.pid, tid), tid) {
                let is_in = |calls: &[i64]| call.is_some_and(|call| calls.contains(&call));
                creates = creates.or(is_in(&CREATING).then_some(tid));
                let group = if is_in(&NOT_RESUMED) {
                    &mut brief
                } else {
                    &mut others
                };
                group.push(tid);
            }
        }
        if let Some(tid) = creates {
            // All others would stand until that ends, or this look is given up.
            for tid in brief.into_iter().chain(others) {
                late::note(process.pid, tid, false);
            }
            return Err(TargetError::NotNow(format!(
                "thread {tid} of process {} waits for a child that shares its memory (vfork)",
                process.pid
            )));
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let mut wait = Waiting::new(since, process.slow.wait());
        let mut brief = brief.into_iter();
        while wait.late.is_empty()
            && let Some(tid) = brief.next()
        {
            if asked(interrupt(process.pid, tid), tid) {
                self.threads.extend(wait.stand(process.pid, tid, ticks));
            }
        }
        // This look is given up: nobody else's wait is to be interrupted for it.
        if !wait.late.is_empty() {
            for tid in brief.chain(others.drain(..)) {
                late::note(process.pid, tid, false);
            }
        }
        // All others are asked before any is waited for.
        others.retain(|tid| asked(interrupt(process.pid, *tid), *tid));
        let stand = others.into_iter();
        self.threads
            .extend(stand.filter_map(|tid| wait.stand(process.pid, tid, ticks)));
        match refused.or(wait.failed) {
            Some(error) => Err(error),
            None => process.slow.are_late(process.pid, &wait.late),
        }
    }

    /// Makes threads stand that were late at an earlier stop, while nobody else stands.
    fn stop_slow(&mut self, tids: &[i32], ticks: &Rc<Ticks>) -> Result<(), TargetError> {
        let (process, begun) = (self.process, Instant::now());
        let mut coming: Vec<Standing> = Vec::new();
        for tid in tids.iter().filter(|tid| !process.is_worker(**tid)) {
            match seize(process.pid, *tid).and_then(|()| interrupt(process.pid, *tid)) {
                Ok(()) => coming.push(Standing::new(process.pid, *tid, ticks)),
                Err(TargetError::Gone(_) | TargetError::NotNow(_)) => {}
                Err(error) => return Err(error),
            }
        }
        while !coming.is_empty() {
            late::let_go();
            for mut thread in std::mem::take(&mut coming) {
                match thread.comes_to_stand() {
                    Ok(true) => {
                        self.since.get_or_insert_with(Instant::now);
                        self.threads.push(thread);
                    }
                    Ok(false) => coming.push(thread),
                    Err(TargetError::Gone(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            // They wait for each other no longer than others would for them.
            let is_over = match self.since {
                Some(since) => since.elapsed() > process.slow.wait(),
                None => begun.elapsed() > PATIENCE,
            };
            if is_over {
                let late: Vec<i32> = coming.iter().map(Standing::tid).collect();
                return process.slow.are_late(process.pid, &late);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Lets all go on, after an `error` for which they stood; it tells for how long.
    fn give_up(self, error: TargetError) -> TargetError {
        let stood = self.since.map(|since| since.elapsed());
        match (self.resume(), error) {
            (Err(error), _) => error,
            (Ok(()), TargetError::NotNow(text)) => TargetError::Late {
                text,
                stood: stood.unwrap_or_default(),
            },
            (Ok(()), error) => error,
        }
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
            // It never comes back to any code of the program.
            if is_worker(&registers) {
                continue;
            }
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
}
