//! What was written, so that it can be put back.

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use invivo_image::LiveAddr;

use crate::{ApplyError, Stopped, Target, TargetError};

/// Places that were written and what they held, in order.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    done: Vec<(LiveAddr, Vec<u8>)>,
}

impl Journal {
    /// Writes what no thread can come by yet.
    pub(crate) fn write(
        &mut self,
        target: &mut dyn Target,
        at: LiveAddr,
        bytes: &[u8],
    ) -> Result<(), TargetError> {
        let mut old = vec![0; bytes.len()];
        target.read(at, &mut old)?;
        if old == bytes {
            return Ok(());
        }
        // First, since a write that fails may have been made in part.
        self.done.push((at, old));
        target.write(at, bytes)
    }

    /// Puts everything back, the last first.
    pub(crate) fn undo(self, target: &mut dyn Target) -> Result<(), TargetError> {
        for (at, old) in self.done.iter().rev() {
            target.write(*at, old)?;
        }
        Ok(())
    }
}

/// A change that becomes live in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) at: LiveAddr,
    pub(crate) old: Vec<u8>,
    pub(crate) new: Vec<u8>,
}

impl Word {
    /// True if no single store changes it.
    pub(crate) fn straddles(&self) -> bool {
        let inside = self.at.0 % 8;
        inside + self.new.len() as u64 > 8
    }

    /// The same the other way.
    fn reverse(&self) -> Word {
        Word {
            at: self.at,
            old: self.new.clone(),
            new: self.old.clone(),
        }
    }

    /// Makes all of `words` live in their order: while threads run, or, where one of them takes
    /// more than a store, while they stand. Returns how long they stood; where it fails, those
    /// that were live are not any more.
    pub(crate) fn make_live(
        target: &mut dyn Target,
        words: &[Word],
    ) -> Result<Duration, ApplyError> {
        let mut live = 0;
        let error = match Word::put(target, words, &mut live) {
            Ok(stood) => return Ok(stood),
            Err(error @ TargetError::Unfinished(_)) => {
                // It may still be made, whatever is done now.
                return Err(ApplyError::Inconsistent(error.to_string()));
            }
            Err(error) => error,
        };
        let back = words[..live].iter().rev().map(Word::reverse);
        let back: Vec<Word> = back
            .filter(|word| !target.holds(word.at, &word.new).unwrap_or(false))
            .collect();
        // A process that made no store may make none now; while all threads stand none is needed.
        if !back.is_empty()
            && let Err(second) = Word::put_standing(target, &back, &mut 0)
        {
            return Err(ApplyError::Inconsistent(format!("{error}; then {second}")));
        }
        Err(error.into())
    }

    fn put_standing(
        target: &mut dyn Target,
        words: &[Word],
        live: &mut usize,
    ) -> Result<Duration, TargetError> {
        target.stop(&[], &mut |stopped| {
            for word in words {
                *live += 1;
                stopped.write(word.at, &word.new)?;
            }
            Ok(())
        })
    }

    fn put(
        target: &mut dyn Target,
        words: &[Word],
        live: &mut usize,
    ) -> Result<Duration, TargetError> {
        if words.iter().any(Word::straddles) {
            return Word::put_standing(target, words, live);
        }
        for word in words {
            *live += 1;
            target.store(word.at, &word.new)?;
        }
        Ok(Duration::ZERO)
    }
}

/// How long places are waited for that a thread goes through.
const PATIENCE: Duration = Duration::from_millis(200);

/// Whether there was a moment at which all threads stood and none was in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// There was one; how long they stood.
    Found(Duration),
    /// There was none, and nothing was done; who was in the way last, for a person.
    Missed(String),
}

/// Runs `during` while all threads stand and none is, or comes back, inside `places`. With `calls`
/// a call may return there, so that every return address must be known, or proved to be none of them.
pub(crate) fn when_nobody_is_in(
    target: &mut dyn Target,
    places: &[Range<LiveAddr>],
    calls: bool,
    during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
) -> Result<Quiet, TargetError> {
    let end = Instant::now() + PATIENCE;
    let mut stood = Duration::ZERO;
    loop {
        let mut who = None;
        stood += target.stop(&[], &mut |stopped| {
            who = somebody_in(stopped, places, calls)?;
            if who.is_none() {
                during(stopped)
            } else {
                Ok(())
            }
        })?;
        match who {
            None => return Ok(Quiet::Found(stood)),
            Some(who) if Instant::now() >= end => return Ok(Quiet::Missed(who)),
            Some(_) => sleep(Duration::from_millis(1)),
        }
    }
}

/// Who may go on inside `places`, for a person; `None` where it is proved that nobody does. Where no
/// call returns to one, a thread is there now, or a signal interrupted it there.
///
/// Where a way back is not known, registers and all memory that can be written are searched for
/// each of the places: a return address is a word somewhere, in whatever form the rest is kept.
fn somebody_in(
    stopped: &mut dyn Stopped,
    places: &[Range<LiveAddr>],
    calls: bool,
) -> Result<Option<String>, TargetError> {
    let mut search = false;
    for stack in stopped.stacks()? {
        let inside = |at: &&LiveAddr| places.iter().any(|place| place.contains(at));
        let thread = &stack.thread;
        if let Some(at) = stack.frames.iter().find(inside) {
            return Ok(Some(format!("{thread} is at {at}, which is replaced")));
        }
        if stack.frames.is_empty() {
            return Ok(Some(format!("{thread} does not tell where it is")));
        }
        search |= stack.unknown.is_some() && (calls || stack.handlers);
    }
    for place in places.iter().filter(|_| search) {
        if let Some(found) = stopped.finds(place)? {
            let text = format!("somebody may come back to {}: {found}", place.start);
            return Ok(Some(text));
        }
    }
    Ok(None)
}
