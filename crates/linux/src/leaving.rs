//! Threads that are inside what is replaced most of the time leave it at their next system call.

use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::TargetError;

use crate::Process;
use crate::late;
use crate::ptrace::{Standing, Stop};
use crate::seize::{interrupt, seize, wait_standing};
use crate::slow::LONGEST;
use crate::stop::PATIENCE;
use crate::ticks::Ticks;

/// How long threads may run on to their next system call.
const RUN_ON: Duration = Duration::from_millis(20);
/// How long one that is there waits for the others.
const TOGETHER: Duration = Duration::from_millis(1);

impl Process {
    /// Lets running threads reach their next system call, and holds them there, or where
    /// they are when the time is over. Who is gone or does not stop is left out. `others` tells
    /// since when others stand, if any do.
    pub(crate) fn at_system_calls(
        &self,
        tids: &[i32],
        others: Option<Instant>,
        ticks: &Rc<Ticks>,
    ) -> (Vec<Standing>, Option<Instant>) {
        let begin = |tid: i32, patience| {
            seize(self.pid, tid)?;
            interrupt(self.pid, tid)?;
            let thread = wait_standing(self.pid, tid, patience, ticks)?;
            if thread.call().is_some() {
                thread.release()?;
                return Ok(None);
            }
            thread.run_on(None)?;
            Ok::<_, TargetError>(Some(thread))
        };
        let mut running: Vec<Standing> = Vec::new();
        for tid in tids.iter().filter(|tid| !self.is_worker(**tid)) {
            let patience = match others {
                None if running.is_empty() => PATIENCE,
                // Whoever runs on may stand at its system call by now.
                None => self.slow.wait(),
                Some(since) => {
                    let left = LONGEST.saturating_sub(since.elapsed());
                    self.slow.wait().min(left)
                }
            };
            running.extend(begin(*tid, patience).ok().flatten());
        }
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
