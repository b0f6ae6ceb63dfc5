//! The switch: all places of a set change together.
//!
//! Four ways, from the quietest on:
//!
//! - **swap**: the text pages show what their file holds. They are moved aside, the
//!   file's own pages take their place, the moved ones are edited and moved back.
//!   Each move is one instant for every thread, and nobody stops.
//! - **drop**: the pages will show what their file holds. They are moved aside and
//!   given back; the file's pages stay. Where the target has locked memory they are
//!   swapped instead, as the file's pages would not be locked.
//! - **copy**: the pages show something else, now and then, and a clean copy of them is kept
//!   since they were swapped. A copy of that is edited, and takes their place in one instant.
//! - **stopped**: all threads stand for a moment.

use std::ops::Range;
use std::time::{Duration, Instant};

use invivo_image::LiveAddr;

use crate::again::{Again, LONGEST_PAUSE, RUN_BETWEEN};
use crate::expected::{first_unexpected, unexpected};
use crate::pages::Pages;
use crate::quiescence::{Blocker, blockers, name_places, standing_in};
use crate::quiet::{Journal, quiet_way};
use crate::spare::Spare;
use crate::transaction::{Consistency, Options, SwitchKind};
use crate::{ApplyError, Target, TargetError};

/// The rank of padding that is taken back.
pub(crate) const LAST: u8 = 2;

/// One place that changes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: LiveAddr,
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
    /// The order of writing: a long jump in padding is there before a short one leads
    /// to it, and goes after. Should this program die in between, nobody falls into a gap.
    pub(crate) rank: u8,
}

impl Change {
    pub(crate) fn range(&self) -> Range<LiveAddr> {
        self.at..LiveAddr(self.at.0.saturating_add(self.to.len() as u64))
    }

    /// True if it takes a long jump in padding back.
    pub(crate) fn is_padding(&self) -> bool {
        self.rank == LAST
    }

    pub(crate) fn meets(&self, other: &Range<LiveAddr>) -> bool {
        let own = self.range();
        own.start < other.end && other.start < own.end
    }

    /// This change and then `next`, as one: what `next` leaves alone is as this one leaves it.
    pub(crate) fn followed_by(&self, next: &Change) -> Change {
        let (own, other) = (self.range(), next.range());
        let range = own.start.min(other.start)..own.end.max(other.end);
        let pick = |first: (LiveAddr, &[u8]), second: (LiveAddr, &[u8])| -> Vec<u8> {
            let byte = |at: u64, (start, bytes): (LiveAddr, &[u8])| {
                let index = usize::try_from(at.checked_sub(start.0)?).ok()?;
                bytes.get(index).copied()
            };
            (range.start.0..range.end.0)
                .filter_map(|at| byte(at, first).or_else(|| byte(at, second)))
                .collect()
        };
        Change {
            at: range.start,
            from: pick((self.at, &self.from), (next.at, &next.from)),
            to: pick((next.at, &next.to), (self.at, &self.to)),
            rank: next.rank,
        }
    }
}

/// What the switch needs to know.
pub(crate) struct Job<'j> {
    pub(crate) changes: &'j [Change],
    /// Code in which no thread may be for `quiescent`.
    pub(crate) busy: &'j [(String, Range<LiveAddr>)],
    /// Bytes in the middle of which no thread may be in any case.
    pub(crate) torn: &'j [(String, Range<LiveAddr>)],
    /// Where clean copies of the code are kept, or may be.
    pub(crate) spare: Option<&'j Spare>,
    pub(crate) options: &'j Options<'j>,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Switched {
    pub(crate) kind: Option<SwitchKind>,
    pub(crate) visited: Duration,
    pub(crate) stopped: Duration,
    /// True if no clean copy of the code is left.
    pub(crate) used_up: bool,
}

/// Makes all changes, or none. `journal` is told where pages will be moved to before
/// they are.
pub(crate) fn switch(
    target: &mut dyn Target,
    job: &Job<'_>,
    journal: &mut Journal<'_>,
) -> Result<Switched, ApplyError> {
    let quiet = job.options.consistency == Consistency::Entry && job.torn.is_empty();
    let way = if quiet {
        quiet_way(target, job.changes, job.spare)?
    } else {
        None
    };
    let switched = match way {
        Some(way) => match way.make(target, job.changes, journal) {
            // Kernels before 5.13 cannot move a file's pages so, and the process's own filter may
            // forbid it; nothing has changed then.
            Err(ApplyError::Target(TargetError::System { .. } | TargetError::Unsupported(_))) => {
                stopped(target, job)?
            }
            other => other?,
        },
        None => stopped(target, job)?,
    };
    verify(target, job.changes)?;
    Ok(switched)
}

/// After so many looks at threads that wait, or that run, a missing proof will not come.
const LOOKS: (u32, u32) = (8, 64);
/// A thread that runs but gets no processor stands at the same place at each look, so
/// looks do not count until so much time has passed.
const NO_PROCESSOR: Duration = Duration::from_millis(500);
/// How long those in the way are taken to be there still, without a look at their stacks.
const LONGEST_STILL: Duration = Duration::from_secs(5);

pub(crate) fn stopped(target: &mut dyn Target, job: &Job<'_>) -> Result<Switched, ApplyError> {
    let begun = Instant::now();
    let deadline = begun + job.options.timeout;
    let mut pause = Duration::from_millis(1);
    let mut still = LONGEST_PAUSE;
    let mut looks = 0;
    let mut again = Again::until(deadline, Some(job.options));
    let mut running: Vec<i32> = Vec::new();
    let quiescent = job.options.consistency == Consistency::Quiescent;
    loop {
        let mut in_the_way: Vec<Blocker> = Vec::new();
        let mut changed = None;
        if quiescent {
            target.expect_coroutines()?;
        }
        let result = target.stop(&running, &mut |all| {
            in_the_way = threads_in_the_way(all, job.busy, job.torn, quiescent)?;
            if in_the_way.is_empty() {
                // Its image may have been closed while this waited, and another be there.
                let mut pages = Pages::new(|at, bytes| all.read(at, bytes));
                changed = first_unexpected(&mut pages, job.changes)?;
                drop(pages);
            }
            if in_the_way.is_empty() && changed.is_none() {
                for (done, change) in job.changes.iter().enumerate() {
                    if let Err(error) = all.write(change.at, &change.to) {
                        for change in job.changes[..=done].iter().rev() {
                            all.write(change.at, &change.from)?;
                        }
                        return Err(error);
                    }
                }
            }
            Ok(())
        });
        let stopped = match result {
            Ok(stopped) => stopped,
            // A thread that gets no processor does not stop either.
            Err(error) => {
                again.after(target, error)?;
                continue;
            }
        };
        if let Some(at) = changed {
            return unexpected(at);
        }
        if in_the_way.is_empty() {
            let kind = Some(SwitchKind::Stopped);
            return Ok(Switched {
                kind,
                visited: Duration::ZERO,
                stopped,
                used_up: false,
            });
        }
        looks += 1;
        // Where only the proof is missing, waiting does not bring it, but for a thread
        // that was on its way through a landing stub.
        let unproved = in_the_way.iter().all(|blocker| blocker.function.is_none());
        let runs = in_the_way.iter().any(|blocker| blocker.running);
        let looked = if runs {
            looks >= LOOKS.1 && begun.elapsed() > NO_PROCESSOR
        } else {
            looks >= LOOKS.0
        };
        let hopeless = unproved && looked && !quiescent;
        let is_over = Instant::now() + pause > deadline;
        if hopeless || job.options.is_interrupted() || is_over {
            name_places(target, &mut in_the_way);
            return Err(ApplyError::Blocked(in_the_way));
        }
        if looks == 1
            && let Some(tell) = job.options.waiting
        {
            name_places(target, &mut in_the_way);
            tell(&in_the_way);
        }
        let inside = in_the_way.iter().filter(|blocker| blocker.running);
        running = inside.map(|blocker| blocker.thread.tid).collect();
        // The threads run again between two looks, each time for longer.
        target.rest(pause);
        if running.is_empty() {
            let until = deadline.min(Instant::now() + still);
            wait_for_one_of(target, &in_the_way, until, job);
            still = (still * 2).min(LONGEST_STILL);
        }
        pause = if running.is_empty() {
            pause * 2
        } else {
            stopped * RUN_BETWEEN
        };
        pause = pause.clamp(Duration::from_millis(1), LONGEST_PAUSE);
    }
}

/// Waits until one of those in the way has gone on, as far as that can be seen without stopping
/// anybody, or `until` then.
///
/// Some waits of other threads begin anew after each look (`epoll_wait` with a time-out): looks
/// that come more often than that time would never let it end.
fn wait_for_one_of(target: &dyn Target, blockers: &[Blocker], until: Instant, job: &Job<'_>) {
    const POLL: Duration = Duration::from_millis(2);
    let place = |blocker: &Blocker| Some((blocker.thread.tid, target.waits(blocker.thread.tid)?));
    let Some(places) = blockers.iter().map(place).collect::<Option<Vec<_>>>() else {
        return;
    };
    let is_there = |(tid, at): &(i32, String)| target.waits(*tid).as_ref() == Some(at);
    while Instant::now() < until && !job.options.is_interrupted() && places.iter().all(is_there) {
        target.rest(POLL);
    }
}

/// Threads that are inside code that is `busy`, where that counts, or in the middle of bytes that would
/// be `torn`, and coroutines that may be.
pub(crate) fn threads_in_the_way(
    all: &mut dyn crate::Stopped,
    busy: &[(String, Range<LiveAddr>)],
    torn: &[(String, Range<LiveAddr>)],
    quiescent: bool,
) -> Result<Vec<Blocker>, TargetError> {
    if !quiescent && torn.is_empty() {
        return Ok(Vec::new());
    }
    let stacks = all.stacks()?;
    let mut found = if torn.is_empty() {
        Vec::new()
    } else {
        standing_in(&stacks, torn)
    };
    if quiescent {
        found.extend(blockers(&stacks, busy));
        // Where a thread is in the way, nothing else has to be looked for yet.
        if found.is_empty()
            && let Some((function, why)) = all.suspended(busy)?
        {
            found.push(Blocker::suspended(&stacks, function, &why));
        }
    }
    found.dedup_by(|a, b| a.thread == b.thread);
    Ok(found)
}

/// The target must now be what the switch says: anything else is our mistake, and
/// the worst one to keep silent about.
fn verify(target: &dyn Target, changes: &[Change]) -> Result<(), ApplyError> {
    let mut pages = Pages::of(target);
    for change in changes {
        if !pages.holds(change.at, &change.to)? {
            return Err(ApplyError::Inconsistent(format!(
                "{} does not hold what was written",
                change.at
            )));
        }
    }
    Ok(())
}
