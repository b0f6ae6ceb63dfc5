//! Is any thread inside these functions, or will it return into one?

use std::fmt;
use std::ops::Range;

use invivo_image::{LiveAddr, demangle};

use crate::symbols::{place_in, symbols};
use crate::{Stack, Target, Thread};

/// One step of a way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The instruction that runs, or to which a call returns.
    pub at: LiveAddr,
    /// What lies there, if it has a name.
    pub place: Option<String>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} {place}", self.at),
            None => write!(f, "{}", self.at),
        }
    }
}

/// A thread that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Which.
    pub thread: Thread,
    /// The replaced function that it is inside, mangled; `None` if its stack is not proved.
    pub function: Option<String>,
    /// Why its stack is not proved.
    pub unknown: Option<String>,
    /// Its way back, innermost first.
    pub frames: Vec<Frame>,
    /// True if it runs, so that it may soon be elsewhere.
    pub running: bool,
}

impl Blocker {
    /// A stack on which none of the threads with these `stacks` runs; it is told as one of the
    /// first of them, which is all that has a number.
    pub(crate) fn suspended(stacks: &[Stack], function: Option<String>, why: &str) -> Blocker {
        let thread = stacks.first().map(|stack| stack.thread.clone());
        let whose = match function {
            Some(function) => format!("is inside {}", demangle(&function)),
            None => "cannot be looked for".to_owned(),
        };
        Blocker {
            thread: thread.unwrap_or(Thread {
                tid: 0,
                name: String::new(),
            }),
            function: None,
            unknown: Some(format!(
                "the program has coroutines, and one that waits {whose}: {why}"
            )),
            frames: Vec::new(),
            running: false,
        }
    }

    /// Why it is in the way.
    #[must_use]
    pub fn reason(&self) -> String {
        match (&self.function, &self.unknown) {
            (Some(function), _) => format!("{} is inside {}", self.thread, demangle(function)),
            (None, Some(why)) => format!("{}: not proved: {why}", self.thread),
            (None, None) => self.thread.to_string(),
        }
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        write!(f, "{}; stack:", self.reason())?;
        let frames = self.frames.iter().take(SHOWN);
        frames
            .into_iter()
            .try_for_each(|frame| write!(f, "\n    {frame}"))?;
        match self.frames.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => write!(f, "\n    … and {more} more"),
            _ => Ok(()),
        }
    }
}

/// Says what `blockers` are called, and what lies at their frames. That takes a while, so the threads must
/// run again by then.
pub(crate) fn name_places(target: &dyn Target, blockers: &mut [Blocker]) {
    // Without names the addresses are still told.
    let patches = symbols(target).unwrap_or_default();
    for blocker in blockers {
        if blocker.thread.name.is_empty() {
            blocker.thread.name = target.thread_name(blocker.thread.tid);
        }
        let frames: Vec<LiveAddr> = blocker.frames.iter().map(|frame| frame.at).collect();
        let places = target.places(&frames);
        for (frame, place) in blocker.frames.iter_mut().zip(places) {
            frame.place = place.or_else(|| place_in(&patches, frame.at));
        }
    }
}

/// Threads that are inside one of `ranges`, or of which that is not known.
pub(crate) fn blockers(stacks: &[Stack], ranges: &[(String, Range<LiveAddr>)]) -> Vec<Blocker> {
    let holder = |pc: &LiveAddr, innermost: bool| {
        ranges.iter().find(|(_, range)| {
            // A return address may be the first byte behind the function: behind a
            // call that never returns.
            range.contains(pc) || (!innermost && *pc == range.end)
        })
    };
    stacks
        .iter()
        .filter_map(|stack| {
            let inside = stack
                .frames
                .iter()
                .enumerate()
                .find_map(|(n, pc)| holder(pc, n == 0));
            let function = inside.map(|(name, _)| name.clone());
            (function.is_some() || stack.unknown.is_some()).then(|| Blocker {
                thread: stack.thread.clone(),
                unknown: if function.is_some() {
                    None
                } else {
                    stack.unknown.clone()
                },
                function,
                frames: stack
                    .frames
                    .iter()
                    .map(|at| Frame {
                        at: *at,
                        place: None,
                    })
                    .collect(),
                running: stack.running,
            })
        })
        .collect()
}

/// Threads that stand inside one of `ranges`, where nothing is called: only the
/// innermost place of a stack, and places that a signal interrupted, can be there.
pub(crate) fn standing_in(stacks: &[Stack], ranges: &[(String, Range<LiveAddr>)]) -> Vec<Blocker> {
    let mut stacks = stacks.to_vec();
    for stack in stacks.iter_mut().filter(|stack| !stack.handlers) {
        stack.frames.truncate(1);
        stack.unknown = None;
    }
    blockers(&stacks, ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(frames: &[u64], unknown: Option<&str>) -> Stack {
        Stack {
            thread: Thread {
                tid: 1,
                name: "t".to_owned(),
            },
            frames: frames.iter().map(|pc| LiveAddr(*pc)).collect(),
            unknown: unknown.map(str::to_owned),
            running: false,
            handlers: true,
        }
    }

    #[test]
    fn a_frame_inside_blocks_and_an_unknown_one_too() {
        let ranges = [("f".to_owned(), LiveAddr(0x100)..LiveAddr(0x200))];
        let inside = blockers(&[stack(&[0x50, 0x150], None)], &ranges);
        assert_eq!(inside[0].function.as_deref(), Some("f"));
        let unknown = blockers(&[stack(&[0x50], Some("no unwind data"))], &ranges);
        assert_eq!(unknown[0].unknown.as_deref(), Some("no unwind data"));
        assert!(blockers(&[stack(&[0x50, 0x300], None)], &ranges).is_empty());
    }

    #[test]
    fn without_handlers_only_the_innermost_place_can_be_torn() {
        let ranges = [("f".to_owned(), LiveAddr(0x100)..LiveAddr(0x200))];
        let quiet = Stack {
            handlers: false,
            ..stack(&[0x50, 0x150], Some("no unwind data"))
        };
        assert!(standing_in(&[quiet], &ranges).is_empty());
        let inside = Stack {
            handlers: false,
            ..stack(&[0x150], None)
        };
        assert_eq!(standing_in(&[inside], &ranges).len(), 1);
        assert_eq!(
            standing_in(&[stack(&[0x50], Some("no unwind data"))], &ranges).len(),
            1
        );
    }

    #[test]
    fn a_return_address_behind_the_last_call_is_inside() {
        let ranges = [("f".to_owned(), LiveAddr(0x100)..LiveAddr(0x200))];
        assert!(blockers(&[stack(&[0x200], None)], &ranges).is_empty());
        assert_eq!(blockers(&[stack(&[0x50, 0x200], None)], &ranges).len(), 1);
    }
}
