//! Functions of a patch that are called in the target before and after it goes live and
//! back; those before may refuse.
//!
//! A stub in the patch's memory calls each, and notes in the patch's variables when it
//! begins and what it answered. So the thread itself keeps this journal, whether or not
//! this program still lives.

use std::ops::Range;
use std::time::Duration;

use invivo_image::{LiveAddr, demangle};
use invivo_patch::Moment;
use serde::{Deserialize, Serialize};

use crate::again::stop_once;
use crate::quiescence::blockers;
use crate::{ApplyError, Record, Target, TargetError, refused};

/// Bytes of the words: one for the patch, two for each moment.
pub(crate) const WORDS: u64 = 40;
/// Bytes of a stub.
pub(crate) const STUB: u64 = 40;

/// How far a patch has come, in its first word.
const ENTERED: u32 = 1;
const LIVE: u32 = 2;
/// How far a callout has come: what the stub writes, and what is written before it runs.
const BEGUN: u32 = 1;
const ENDED: u32 = 2;
const ASKED: u32 = 3;

/// Callouts of a patch in a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callouts {
    /// Where the words are.
    pub words: LiveAddr,
    /// Which there are.
    pub all: Vec<Placed>,
}

/// A callout in a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// When it is called.
    pub moment: Moment,
    /// Its name, mangled.
    pub function: String,
    /// The stub that calls it.
    pub stub: LiveAddr,
}

/// A callout that was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Called {
    /// When.
    pub moment: Moment,
    /// Its name.
    pub function: String,
    /// What it returned.
    pub answer: u32,
}

impl Callouts {
    /// The words of one moment, where all begin at `words`: how far it has come, and its
    /// answer.
    pub(crate) fn place(words: LiveAddr, moment: Moment) -> LiveAddr {
        LiveAddr(words.0.saturating_add(8 + 8 * moment as u64))
    }

    /// True if the stubs lie in the patch's code and the words in its variables.
    pub(crate) fn lie_in(&self, region: (LiveAddr, u64), data: (LiveAddr, u64)) -> bool {
        let inside = |at: LiveAddr, size: u64, (start, room): (LiveAddr, u64)| {
            let end = at.0.checked_add(size);
            let last = start.0.checked_add(room);
            at >= start && end.zip(last).is_some_and(|(end, last)| end <= last)
        };
        let stubs = |placed: &Placed| inside(placed.stub, STUB, region);
        inside(self.words, WORDS, data) && self.all.iter().all(stubs)
    }

    fn words_of(&self, moment: Moment) -> LiveAddr {
        Callouts::place(self.words, moment)
    }

    fn find(&self, moment: Moment) -> Option<&Placed> {
        self.all.iter().find(|placed| placed.moment == moment)
    }
}

/// The code that calls `function` and keeps the words at `words`; `None` if that is too far.
pub(crate) fn stub(at: LiveAddr, words: LiveAddr, function: LiveAddr) -> Option<Vec<u8>> {
    let distance = |next: usize, to: u64| {
        let next = at.0.checked_add(next as u64)?;
        let distance = to.cast_signed().checked_sub(next.cast_signed())?;
        Some(i32::try_from(distance).ok()?.to_le_bytes())
    };
    let mut code = Vec::new();
    // mov dword ptr [words], BEGUN
    code.extend([0xc7, 0x05]);
    code.extend(distance(10, words.0)?);
    code.extend(BEGUN.to_le_bytes());
    // sub rsp, 8; call function; add rsp, 8
    code.extend([0x48, 0x83, 0xec, 8, 0xe8]);
    code.extend(distance(19, function.0)?);
    code.extend([0x48, 0x83, 0xc4, 8]);
    // mov [words+4], eax
    code.extend([0x89, 0x05]);
    code.extend(distance(29, words.0.checked_add(4)?)?);
    // mov dword ptr [words], ENDED; ret
    code.extend([0xc7, 0x05]);
    code.extend(distance(39, words.0)?);
    code.extend(ENDED.to_le_bytes());
    code.push(0xc3);
    Some(code)
}

fn word(target: &dyn Target, at: LiveAddr) -> Result<u32, TargetError> {
    let mut bytes = [0; 4];
    target.read(at, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Begins anew: none was called.
pub(crate) fn enter(target: &mut dyn Target, record: &Record) -> Result<(), TargetError> {
    let Some(callouts) = &record.callouts else {
        return Ok(());
    };
    let mut words = [0; WORDS as usize];
    words[..4].copy_from_slice(&ENTERED.to_le_bytes());
    target.write(callouts.words, &words)
}

/// Notes that the patch goes live.
pub(crate) fn goes_live(target: &mut dyn Target, record: &Record) -> Result<(), TargetError> {
    mark(target, record, LIVE)
}

/// Notes that nothing is due any more, as when another patch takes its place.
pub(crate) fn leave(target: &mut dyn Target, record: &Record) -> Result<(), TargetError> {
    mark(target, record, 0)
}

fn mark(target: &mut dyn Target, record: &Record, value: u32) -> Result<(), TargetError> {
    match &record.callouts {
        Some(callouts) => target.write(callouts.words, &value.to_le_bytes()),
        None => Ok(()),
    }
}

/// Calls the patch's function for `moment`, if it has one. The thread that is borrowed holds
/// no lock of the runtime, the loader or the allocator.
pub(crate) fn call(
    target: &mut dyn Target,
    record: &Record,
    moment: Moment,
    called: &mut Vec<Called>,
) -> Result<Duration, ApplyError> {
    let Some((callouts, placed)) = find(record, moment) else {
        return Ok(Duration::ZERO);
    };
    let words = callouts.words_of(moment);
    let asked = [ASKED.to_le_bytes(), [0; 4]].concat();
    let mut is_asked = false;
    let visited = target.visit_outside_runtime(&mut |visit| {
        visit.write(words, &asked)?;
        is_asked = true;
        visit.call(placed.stub, [0, 0])
    });
    if visited.is_err() && is_asked && word(target, words)? == ASKED {
        // A call that may still be made is the next command's.
        if !matches!(visited, Err(TargetError::Unfinished(_))) {
            target.write(words, &[0; 8])?;
        }
    }
    let visited = visited?;
    let answer = word(target, LiveAddr(words.0 + 4))?;
    let function = demangle(&placed.function);
    called.push(Called {
        moment,
        function,
        answer,
    });
    Ok(visited)
}

/// The same for one that comes after: what has been done stays done, and one that cannot be
/// called now is the next command's.
pub(crate) fn tell(
    target: &mut dyn Target,
    record: &Record,
    moment: Moment,
    called: &mut Vec<Called>,
) -> Result<Duration, ApplyError> {
    call(target, record, moment, called).map_err(|error| match (error, find(record, moment)) {
        (ApplyError::Target(TargetError::NotNow(why)), Some((_, placed))) => {
            let is = if moment == Moment::AfterApply {
                "live"
            } else {
                "taken back"
            };
            ApplyError::Target(TargetError::NotNow(format!(
                "{} is {is}, but {}, which it calls {moment}, could not be called: {why}; the \
                 next command calls it, or invivo recover",
                record.name,
                demangle(&placed.function)
            )))
        }
        (error, _) => error,
    })
}

/// The same as [`call`], where an answer other than 0 refuses.
pub(crate) fn ask(
    target: &mut dyn Target,
    record: &Record,
    moment: Moment,
    called: &mut Vec<Called>,
) -> Result<Duration, ApplyError> {
    let before = called.len();
    let visited = call(target, record, moment, called)?;
    match called.get(before) {
        Some(one) if one.answer != 0 => refused(format!(
            "{}, which {} calls {moment}, refuses with {}",
            one.function,
            record.name,
            one.answer.cast_signed()
        )),
        _ => Ok(visited),
    }
}

fn find(record: &Record, moment: Moment) -> Option<(&Callouts, &Placed)> {
    let callouts = record.callouts.as_ref()?;
    Some((callouts, callouts.find(moment)?))
}

/// Calls what is due for a patch that is live, or is not, and was left so by a tool that
/// died or failed. True if something was called.
///
/// What a live patch is due is its callout after the apply. One that is not live is due
/// the one after the revert, if it was live, or if the one before the apply had agreed.
pub(crate) fn finish(
    target: &mut dyn Target,
    record: &Record,
    is_live: bool,
) -> Result<bool, ApplyError> {
    let Some(callouts) = &record.callouts else {
        return Ok(false);
    };
    let far = word(target, callouts.words)?;
    if far == 0 {
        return Ok(false);
    }
    for placed in &callouts.all {
        ends(target, record, callouts, placed)?;
    }
    let state = |target: &dyn Target, moment| word(target, callouts.words_of(moment));
    let mut called = Vec::new();
    if is_live {
        if callouts.find(Moment::AfterApply).is_some()
            && state(target, Moment::AfterApply)? != ENDED
        {
            call(target, record, Moment::AfterApply, &mut called)?;
        }
        return Ok(!called.is_empty());
    }
    let before = callouts.words_of(Moment::BeforeApply);
    let agreed = word(target, before)? == ENDED && word(target, LiveAddr(before.0 + 4))? == 0;
    if (far == LIVE || agreed) && state(target, Moment::AfterRevert)? != ENDED {
        call(target, record, Moment::AfterRevert, &mut called)?;
    }
    leave(target, record)?;
    Ok(!called.is_empty())
}

/// `Ok` if the callout is not running.
fn ends(
    target: &mut dyn Target,
    record: &Record,
    callouts: &Callouts,
    placed: &Placed,
) -> Result<(), ApplyError> {
    let words = callouts.words_of(placed.moment);
    let mut now = word(target, words)?;
    if now == ASKED {
        // Either a thread is on its way to the stub, or the tool died just before.
        let stub: Range<LiveAddr> = placed.stub..LiveAddr(placed.stub.0 + STUB);
        let mut found = Vec::new();
        stop_once(target, &mut |all| {
            found = blockers(&all.stacks()?, &[(placed.function.clone(), stub.clone())]);
            Ok(())
        })?;
        now = word(target, words)?;
        if now == ASKED && found.is_empty() {
            target.write(words, &[0; 8])?;
            return Ok(());
        }
    }
    if now == BEGUN || now == ASKED {
        return Err(ApplyError::Target(TargetError::NotNow(format!(
            "{}, which {} calls {}, still runs",
            demangle(&placed.function),
            record.name,
            placed.moment
        ))));
    }
    Ok(())
}
