//! Functions as they are now: fresh, led through the address table, or changed by somebody else.

use invivo_format::hpat::Record;
use invivo_image::LiveAddr;
use invivo_image::pe::PeMachine;
use invivo_image::x86_64::instructions;

use super::table::{ENTRY, Slot, pointer};
use super::{Entry, PatchedImage};
use crate::pe::{Word, bytes};
use crate::{ApplyError, Loaded, Target, refused};

/// The stores that make live functions their own again.
pub(super) fn restoring(
    state: &PatchedImage,
    target: &dyn Target,
    which: impl Fn(u32) -> bool,
) -> Result<Vec<Word>, ApplyError> {
    let mut words = Vec::new();
    for (at, entry) in state
        .entries
        .iter()
        .filter(|(at, entry)| entry.live && which(**at))
    {
        check_known(target, &state.base, *at, entry)?;
        words.push(Word {
            at: state.base.address(*at)?,
            old: ENTRY.to_vec(),
            new: entry.original[5..].to_vec(),
        });
    }
    Ok(words)
}

/// Refuses an entry that is not as it was left.
pub(super) fn check_known(
    target: &dyn Target,
    base: &Loaded,
    at: u32,
    entry: &Entry,
) -> Result<(), ApplyError> {
    match changed(target, base, at, entry)? {
        None => Ok(()),
        Some(place) => {
            let function = base.address(at)?;
            refused(format!(
                "somebody changed {place}, which belongs to the patched function at {function}"
            ))
        }
    }
}

/// True if an entry is as it was left.
pub(super) fn intact(
    target: &dyn Target,
    base: &Loaded,
    at: u32,
    entry: &Entry,
) -> Result<bool, ApplyError> {
    Ok(changed(target, base, at, entry)?.is_none())
}

/// The first place of an entry that is not as it was left.
fn changed(
    target: &dyn Target,
    base: &Loaded,
    at: u32,
    entry: &Entry,
) -> Result<Option<LiveAddr>, ApplyError> {
    let function = base.address(at)?;
    let slot = Slot::of(base, entry.index);
    let mut expected = slot.approach(function)?.to_vec();
    expected.extend(if entry.live {
        &ENTRY
    } else {
        &entry.original[5..]
    });
    for (place, expected) in [
        (LiveAddr(function.0 - 5), expected),
        (slot.code, slot.jump(base)?.to_vec()),
        (slot.pointer, pointer(base, entry.to)?),
    ] {
        if !target.holds(place, &expected)? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// The seven bytes around the begin of a function that nothing was done to; refuses one that is
/// not as the patch expects, or that cannot be entered in two steps.
pub(super) fn fresh(
    target: &dyn Target,
    image: &Loaded,
    record: &Record,
) -> Result<[u8; 7], ApplyError> {
    let function = image.address(record.source)?;
    let found: [u8; 7] = bytes(target, LiveAddr(function.0 - 5))?;
    let of_file = image.original::<7>(record.source - 5)?;
    let is_pad = |byte: &u8| matches!(byte, 0xcc | 0x90 | 0);
    if found[5] == ENTRY[0] && found[6] >= 0xee {
        return refused(format!("somebody else hooked the function at {function}"));
    }
    if found != of_file {
        return refused(format!(
            "the bytes around {function} are {found:02x?}, in the file they are {of_file:02x?}"
        ));
    }
    if !found[..5].iter().all(is_pad) {
        return refused(format!(
            "A25: no padding is before the function at {function}"
        ));
    }
    let bits = match image.image.machine {
        PeMachine::I386 => 32,
        _ => 64,
    };
    let code: [u8; 15] = image.original(record.source)?;
    let first = instructions(&code, bits).first().map(|one| one.length);
    if first.is_none_or(|length| length < ENTRY.len()) {
        return refused(format!(
            "the first instruction of the function at {function} has one byte; build the base \
             with -fms-hotpatch"
        ));
    }
    Ok(found)
}
