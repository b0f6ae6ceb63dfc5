//! Threads that a tool which died meanwhile had sent on their way.
//!
//! They make their call and come back by themselves. Until then nothing that depends
//! on that call may be decided: memory that is not there yet may still appear.

use std::rc::Rc;
use std::time::{Duration, Instant};

use invivo_apply::TargetError;
use invivo_image::LiveAddr;

use crate::Process;
use crate::deputy::by_deputy;
use crate::proc_file::{self, Status};
use crate::seize::{interrupt, seize, wait_standing};
use crate::signal_frame::is_frame;
use crate::ticks::Ticks;
use crate::workers::is_flagged;

/// How long a thread may take to come back: it needs a processor for a moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often its signal mask is read meanwhile, which does not disturb it.
const POLL: Duration = Duration::from_millis(1);
/// How much of a stack is searched for the way back. A call that a thread makes for a
/// tool needs little.
const SEARCHED: usize = 64 << 10;
/// Signals that no thread blocks, as bits.
const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);

impl Process {
    /// Waits until no thread is on its way for a tool that died. What is known of the mappings
    /// then is as they are afterwards.
    /// `status` is what the process has just said, which is its first thread's word.
    pub(crate) fn wait_for_strays(&self, status: &Status) -> Result<(), TargetError> {
        let deadline = Instant::now() + PATIENCE;
        let tids = match self.thread_count() {
            Some(1) => vec![self.first],
            _ => self.tids()?,
        };
        for tid in tids {
            if tid == self.first && !blocks_every_signal(status) {
                continue;
            }
            let blocks = || {
                self.may_block_every_signal(tid)
                    && blocks_every_signal(&Status::of_thread(self.pid, tid))
            };
            // Hardly any thread does, and each look counts where there are many.
            if !blocks() {
                continue;
            }
            let mut pause = POLL;
            self.is_64_bit()?;
            while blocks() && by_deputy(|| self.is_stray(tid))? {
                // A look makes the thread stand, and then it waits for a processor anew: where
                // others want it as well, a thread that is looked at often never gets there.
                let look = Instant::now() + pause;
                while blocks() && Instant::now() < look.min(deadline) {
                    std::thread::sleep(POLL);
                }
                pause *= 2;
                if Instant::now() > deadline {
                    return Err(TargetError::NotNow(format!(
                        "thread {tid} of process {} still makes a call for a tool that died",
                        self.pid
                    )));
                }
            }
            self.forget_maps();
        }
        Ok(())
    }

    /// False for a thread that is known to let a signal in, from what is read most quickly: there
    /// may be thousands of threads.
    fn may_block_every_signal(&self, tid: i32) -> bool {
        /// The first 31 signals that a thread blocks, of the values behind its name.
        const BLOCKED: usize = 29;
        const FIRST: u64 = (1 << 31) - 1;
        let stat = proc_file::read_piece(&format!("/proc/{}/task/{tid}/stat", self.pid));
        let blocked = stat.map_or(Some(0), |stat| {
            // The kernel's own block every signal, and what they do fails where they are looked at.
            if is_flagged(&stat) {
                return Some(0);
            }
            proc_file::value_of(&stat, BLOCKED)?.parse::<u64>().ok()
        });
        blocked.is_none_or(|blocked| (blocked | UNBLOCKABLE) & FIRST == FIRST)
    }

    fn is_stray(&self, tid: i32) -> Result<bool, TargetError> {
        let ticks = Rc::new(Ticks::new());
        let standing = seize(self.pid, tid)
            .and_then(|()| interrupt(self.pid, tid))
            .and_then(|()| wait_standing(self.pid, tid, Duration::from_secs(1), &ticks));
        let thread = match standing {
            Ok(thread) => thread,
            Err(TargetError::Gone(_)) => return Ok(false),
            Err(TargetError::NotNow(_)) => return Ok(self.has_thread(tid)),
            Err(error) => return Err(error),
        };
        let registers = thread.registers()?;
        // Before the return the way back lies at the stack pointer, behind it just below.
        let from = registers.rsp.saturating_sub(8);
        let stack = self.memory.read_some(LiveAddr(from), SEARCHED);
        let way_back = self.gadgets()?.way_back();
        thread.release()?;
        Ok(is_frame(&stack, way_back))
    }
}

/// As a thread does that makes a call for a tool; hardly another one does.
fn blocks_every_signal(status: &Status) -> bool {
    let mask = status.bits("SigBlk:");
    mask.is_some_and(|mask| mask | UNBLOCKABLE == u64::MAX)
}
