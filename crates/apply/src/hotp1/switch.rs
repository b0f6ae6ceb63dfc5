//! All hooks of a patch in one step: every thread stands while they are written.

use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;

use super::busy;
use super::hooks::Descriptor;
use crate::pe::{Quiet, when_nobody_is_in};
use crate::{ApplyError, Stopped, Target, TargetError};

/// Writes the hooks at a moment when no thread is between instructions that are replaced.
pub(super) fn install(
    target: &mut dyn Target,
    hooks: &[Descriptor],
) -> Result<Duration, ApplyError> {
    // At the first byte of what is replaced a thread goes on with the one or the other.
    let places = hooks
        .iter()
        .map(|hook| LiveAddr(hook.at.0 + 1)..hook.range().end);
    let writes: Vec<_> = hooks
        .iter()
        .map(|hook| (hook.at, &hook.original, &hook.code))
        .collect();
    let calls = hooks.iter().any(|hook| hook.calls);
    write(target, &places.collect::<Vec<_>>(), calls, &writes)
}

/// Writes what was there before, at a moment when no thread is on its way through the hooks.
pub(super) fn remove(
    target: &mut dyn Target,
    hooks: &[Descriptor],
) -> Result<Duration, ApplyError> {
    let places = hooks.iter().map(|hook| {
        // A jump in padding is no instruction of the target's any more; one at an instruction's
        // place gives way to it.
        let start = if hook.beside {
            hook.at.0
        } else {
            hook.at.0 + 1
        };
        LiveAddr(start)..hook.range().end
    });
    // The last first, so that what leads to the others is gone before them.
    let writes = hooks
        .iter()
        .rev()
        .map(|hook| (hook.at, &hook.code, &hook.original));
    write(
        target,
        &places.collect::<Vec<_>>(),
        false,
        &writes.collect::<Vec<_>>(),
    )
}

/// Writes back what a switch left that did not end; who stands or comes back inside what it wrote
/// is waited for.
pub(super) fn put_back(
    target: &mut dyn Target,
    back: &[(LiveAddr, Vec<u8>, Vec<u8>)],
) -> Result<(), ApplyError> {
    if back.is_empty() {
        return Ok(());
    }
    let places = back
        .iter()
        .map(|(at, now, _)| LiveAddr(at.0 + 1)..LiveAddr(at.0 + now.len() as u64));
    let writes = back.iter().map(|(at, now, old)| (*at, now, old));
    let places = places.collect::<Vec<_>>();
    write(target, &places, true, &writes.collect::<Vec<_>>()).map(|_| ())
}

/// Place, what is there, what is to be there.
type Write<'a> = (LiveAddr, &'a Vec<u8>, &'a Vec<u8>);

fn write(
    target: &mut dyn Target,
    places: &[Range<LiveAddr>],
    calls: bool,
    writes: &[Write<'_>],
) -> Result<Duration, ApplyError> {
    let mut broken = None;
    let stood = when_nobody_is_in(target, places, calls, &mut |stopped| {
        put(stopped, writes, &mut broken)
    });
    if let Some(text) = broken {
        return Err(ApplyError::Inconsistent(text));
    }
    match stood? {
        Quiet::Found(stood) => Ok(stood),
        Quiet::Missed(who) => Err(busy(&who)),
    }
}

/// Writes all; where one fails, those before it are put back while nobody has seen them.
fn put(
    stopped: &mut dyn Stopped,
    writes: &[Write<'_>],
    broken: &mut Option<String>,
) -> Result<(), TargetError> {
    for (number, (at, _, new)) in writes.iter().enumerate() {
        let Err(error) = stopped.write(*at, new) else {
            continue;
        };
        for (at, old, _) in writes[..=number].iter().rev() {
            if let Err(second) = stopped.write(*at, old) {
                *broken = Some(format!("{error}; then {second}"));
                break;
            }
        }
        return Err(error);
    }
    Ok(())
}
