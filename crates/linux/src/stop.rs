//! All threads stand for a moment.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use invivo_apply::{Stack, Stopped, TargetError, Thread};
use invivo_image::LiveAddr;

use crate::Process;
use crate::priority::First;
use crate::ptrace::{Standing, interrupt, seize, wait_standing};
use crate::unwind::Unwinder;

/// How long a thread may take to stop.
const PATIENCE: Duration = Duration::from_secs(1);

/// Every thread of a process, standing.
pub(crate) struct AllStopped<'p> {
    process: &'p Process,
    unwinder: &'p mut Unwinder,
    threads: Vec<Standing>,
    _first: First,
}

impl<'p> AllStopped<'p> {
    /// Stops all threads, those too that are born meanwhile.
    pub(crate) fn new(
        process: &'p Process,
        unwinder: &'p mut Unwinder,
    ) -> Result<Self, TargetError> {
        let mut all = AllStopped {
            process,
            unwinder,
            threads: Vec::new(),
            _first: First::new(),
        };
        let mut known = BTreeSet::new();
        loop {
            let mut new: Vec<i32> = process
                .tids()?
                .into_iter()
                .filter(|tid| known.insert(*tid))
                .collect();
            if new.is_empty() {
                break;
            }
            // All are asked before any is waited for.
            let mut refused = None;
            new.retain(|tid| {
                match seize(process.pid, *tid).and_then(|()| interrupt(process.pid, *tid)) {
                    Ok(()) => true,
                    Err(TargetError::Gone(_)) => false,
                    Err(TargetError::NotNow(_)) if !process.has_thread(*tid) => false,
                    Err(error) => {
                        refused = Some(error);
                        false
                    }
                }
            });
            for tid in new {
                match wait_standing(process.pid, tid, PATIENCE) {
                    Ok(standing) => all.threads.push(standing),
                    Err(TargetError::Gone(_)) => {}
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            if let Some(error) = refused {
                all.resume()?;
                return Err(error);
            }
        }
        Ok(all)
    }

    /// Lets all threads go on as if nothing had happened.
    pub(crate) fn resume(self) -> Result<(), TargetError> {
        let mut failure = None;
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
        for thread in &self.threads {
            let registers = thread.registers()?;
            let (frames, unknown) = self.unwinder.walk(&self.process.memory, &registers);
            let name = self.process.thread_name(thread.tid());
            let thread = Thread {
                tid: thread.tid(),
                name,
            };
            stacks.push(Stack {
                thread,
                frames,
                unknown,
                handlers,
            });
        }
        Ok(stacks)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.process.memory.write(at, bytes)
    }
}

impl Process {
    /// Runs `during` while all threads stand; tells how long they did.
    pub(crate) fn while_stopped(
        &self,
        during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        // Tables are read before anybody stops.
        let mut unwinder = Unwinder::new(self)?;
        let start = Instant::now();
        let mut all = AllStopped::new(self, &mut unwinder)?;
        let result = during(&mut all);
        all.resume()?;
        result.map(|()| start.elapsed())
    }
}
