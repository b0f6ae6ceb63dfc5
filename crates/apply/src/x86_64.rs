//! x86-64: which hook an entry takes, and the bytes of it.
//!
//! If exactly one instruction is replaced, no thread can be between the replaced
//! bytes, so no thread needs to be looked at. Only where no single instruction is
//! long enough must the threads stop for a moment.

use invivo_image::LiveAddr;
use invivo_patch::{Effect, Entry, Step};

/// `jmp rel32`.
const NEAR_JUMP: u64 = 5;
/// `jmp rel8`.
const SHORT_JUMP: u64 = 2;
/// `int3`: what is left of a replaced instruction; nothing ever runs it.
const FILL: u8 = 0xcc;

/// How an entry is hooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `jmp rel32` over the first instruction (or the one behind `endbr64`).
    Jump,
    /// `jmp rel8` over one instruction, to `jmp rel32` in padding nearby.
    PadJump,
    /// `jmp rel32` over a later instruction of the prologue; a landing stub undoes
    /// what ran before it.
    LateJump,
    /// `jmp rel32` over several instructions: threads must be known to be elsewhere.
    Overwrite,
}

impl Form {
    /// All of them, from the best one on.
    pub const ALL: [Form; 4] = [Form::Jump, Form::PadJump, Form::LateJump, Form::Overwrite];

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Form::Jump => "jump over one instruction",
            Form::PadJump => "short jump to padding",
            Form::LateJump => "jump behind the prologue's start",
            Form::Overwrite => "jump over several instructions",
        }
    }

    /// True if all threads have to stop for a moment, whatever the consistency: one may
    /// stand between the instructions that are replaced.
    #[must_use]
    pub fn needs_stop(self) -> bool {
        self == Form::Overwrite
    }
}

/// A hook for one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How.
    pub form: Form,
    /// Offset of the replaced instruction from the entry, in bytes.
    pub offset: u64,
    /// Bytes that are replaced there.
    pub length: u64,
    /// For [`Form::PadJump`]: where the long jump stands, as an offset from the entry.
    pub pad: Option<i64>,
    /// What ran before it and must be taken back.
    undo: Vec<Effect>,
}

impl Choice {
    /// Code between the hook and the new function; empty where the hook leads to it directly.
    #[must_use]
    pub fn landing_stub(&self, at: LiveAddr, function: LiveAddr) -> Option<Vec<u8>> {
        let mut code = Vec::new();
        for effect in self.undo.iter().rev() {
            match effect {
                // pop
                Effect::Push(number) => {
                    if *number >= 8 {
                        code.push(0x41);
                    }
                    code.push(0x58 | number & 7);
                }
                // lea rsp, [rsp+n]: unlike `add`, it leaves the flags alone.
                Effect::Room(bytes) => {
                    code.extend([0x48, 0x8d, 0xa4, 0x24]);
                    code.extend(bytes.to_le_bytes());
                }
                Effect::Landing | Effect::None | Effect::Lasting => {}
            }
        }
        let jump = at.checked_add(code.len() as u64)?;
        code.extend(near_jump(jump, function)?);
        Some(code)
    }

    /// True if the hook leads to a landing stub.
    #[must_use]
    pub fn needs_stub(&self) -> bool {
        !self.undo.is_empty()
    }

    /// What is written where, for the function at `entry` and a jump to `target`;
    /// `None` if the distance is too large for a jump.
    #[must_use]
    pub fn writes(&self, entry: LiveAddr, target: LiveAddr) -> Option<Vec<(LiveAddr, Vec<u8>)>> {
        let site = entry.checked_add(self.offset)?;
        let length = usize::try_from(self.length).ok()?;
        if let Some(offset) = self.pad {
            let pad = entry.checked_offset(offset)?;
            let short = short_distance(self.offset, offset)?;
            let mut short = vec![0xeb, short.to_le_bytes()[0]];
            short.resize(length, FILL);
            return Some(vec![(pad, near_jump(pad, target)?), (site, short)]);
        }
        let mut jump = near_jump(site, target)?;
        jump.resize(length, FILL);
        Some(vec![(site, jump)])
    }
}

/// The distance of a short jump from `site` to `pad`, both offsets from the entry.
fn short_distance(site: u64, pad: i64) -> Option<i8> {
    let next = i64::try_from(site.checked_add(SHORT_JUMP)?).ok()?;
    i8::try_from(pad.checked_sub(next)?).ok()
}

fn near_jump(at: LiveAddr, target: LiveAddr) -> Option<Vec<u8>> {
    let next = i64::try_from(at.0.checked_add(NEAR_JUMP)?).ok()?;
    let distance = i32::try_from(i64::try_from(target.0).ok()?.checked_sub(next)?).ok()?;
    let mut code = vec![0xe9];
    code.extend(distance.to_le_bytes());
    Some(code)
}

/// Chooses the hook for the function at `at`, whose unpatched code has `size` bytes and
/// whose entry is `entry`. `taken` holds padding that other hooks use; what this one uses
/// is added.
///
/// # Errors
/// Why no hook fits.
pub fn choose(
    entry: &Entry,
    at: LiveAddr,
    size: u64,
    taken: &mut Vec<LiveAddr>,
) -> Result<Choice, String> {
    let (skip, rest) = behind_landing(entry);
    if rest.is_empty() {
        return Err("its first instruction cannot be decoded".to_owned());
    }
    let mut undo = Vec::new();
    let mut offset = skip;
    for step in rest {
        let length = u64::from(step.length);
        if offset + length > u64::from(entry.clear) {
            break;
        }
        // Behind the last instruction lies padding that nothing runs, so a hook on a
        // lone `ret` may reach into it.
        let last = offset + length == size;
        let room = if last {
            length + u64::from(entry.tail)
        } else {
            length
        };
        let pad = if (SHORT_JUMP..NEAR_JUMP).contains(&room) {
            free_pad(entry, at, offset, taken)
        } else {
            None
        };
        if room >= NEAR_JUMP || pad.is_some() {
            taken.extend(pad.and_then(|pad| at.checked_offset(pad)));
            let form = match pad {
                Some(_) => Form::PadJump,
                None if undo.is_empty() => Form::Jump,
                None => Form::LateJump,
            };
            let least = if pad.is_some() { SHORT_JUMP } else { NEAR_JUMP };
            return Ok(Choice {
                form,
                offset,
                length: length.max(least),
                pad,
                undo,
            });
        }
        match step.effect {
            Effect::Lasting => break,
            Effect::Landing | Effect::None => {}
            Effect::Push(_) | Effect::Room(_) => undo.push(step.effect),
        }
        offset += length;
    }
    overwrite(skip, rest, size, entry)
}

/// True if the function was compiled to be patched while it runs, or happens to look so:
/// room for a long jump right before it, and a first instruction (or one behind `endbr64`)
/// that a short jump can replace.
#[must_use]
pub fn is_prepared(entry: &Entry) -> bool {
    let (_, rest) = behind_landing(entry);
    let long_enough = rest
        .first()
        .is_some_and(|first| u64::from(first.length) >= SHORT_JUMP);
    long_enough
        && entry
            .pads
            .iter()
            .any(|(start, size)| start + i64::from(*size) == 0 && u64::from(*size) >= NEAR_JUMP)
}

/// The instructions behind `endbr64`, and how many bytes that has, if it is there.
fn behind_landing(entry: &Entry) -> (u64, &[Step]) {
    match &entry.steps[..] {
        [first, rest @ ..] if first.effect == Effect::Landing => (first.length.into(), rest),
        rest => (0, rest),
    }
}

/// Room for a long jump in padding that a short jump at `site` reaches.
fn free_pad(entry: &Entry, at: LiveAddr, site: u64, taken: &[LiveAddr]) -> Option<i64> {
    let step = NEAR_JUMP.cast_signed();
    let free = |pad: &i64| {
        at.checked_offset(*pad).is_some_and(|pad| {
            taken
                .iter()
                .all(|other| other.0.abs_diff(pad.0) >= NEAR_JUMP)
        })
    };
    // What lies right before the entry comes first: where compilers plan for hooks, each
    // function has its own room there, and what is farther away is another one's.
    let own = |pad: &&(i64, u32)| is_right_before(pad);
    let pads = entry.pads.iter().filter(own);
    let pads = pads.chain(entry.pads.iter().filter(|pad| !own(pad)));
    pads.copied().find_map(|(start, size)| {
        // From the end on, so that as little as possible is cut off.
        let end = start + i64::from(size);
        let mut places = (1..=i64::from(size) / step).map(|n| end - n * step);
        places.find(|pad| short_distance(site, *pad).is_some() && free(pad))
    })
}

/// True for padding that ends where the function begins.
fn is_right_before((start, size): &(i64, u32)) -> bool {
    start + i64::from(*size) == 0
}

/// Several instructions, for a moment at which no thread is between them.
fn overwrite(skip: u64, rest: &[Step], size: u64, entry: &Entry) -> Result<Choice, String> {
    let mut length = 0;
    for step in rest {
        length += u64::from(step.length);
        if length >= NEAR_JUMP {
            break;
        }
    }
    let end = skip + length;
    let reach = if end == size {
        u64::from(entry.tail)
    } else {
        0
    };
    if length + reach < NEAR_JUMP {
        return Err(format!("its {size} bytes are too short for a hook"));
    }
    if end > u64::from(entry.clear) {
        return Err(
            "it has a loop that begins in its first bytes, and no padding before it".to_owned(),
        );
    }
    let length = length.max(NEAR_JUMP);
    Ok(Choice {
        form: Form::Overwrite,
        offset: skip,
        length,
        pad: None,
        undo: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
