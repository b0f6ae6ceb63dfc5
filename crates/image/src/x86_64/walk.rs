//! Code looked through for what it refers to, decoded no further than that takes.

use iced_x86::{Instruction, Register};

use super::plain::{FIXED, MOVABLE};
use super::{
    Reference, ReferenceKind, Skim, Traits, decoder, is_known, line_of, may_be_address, skim,
    table_word,
};
use crate::{Image, Link, LinkAddr, Machine, aarch64};

/// One instruction, or one byte that is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Its distance from the start of the code.
    pub start: usize,
    /// What it is.
    pub skim: Skim,
    /// What its address operand refers to, as in [`super::Line`].
    pub address: Option<Reference>,
    /// What its immediate operand refers to.
    pub immediate: Option<Reference>,
    /// Which operands are looked at as addresses, and are none in this image.
    pub numbers: Numbers,
}

/// Operands that might be addresses in another image with the same code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The displacement, of 32 bits with a sign.
    pub displacement: bool,
    /// The immediate operand.
    pub immediate: bool,
    /// Whether there are any is not known.
    pub unknown: bool,
}

impl Numbers {
    /// True if there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Numbers::default()
    }
}

/// Where the addresses of one image are, or of several: no number outside is one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressSpan {
    first: u64,
    /// From the first to the last, which is the end of what lies there.
    length: u64,
}

impl AddressSpan {
    /// All from `first` to `last`, which is one, too.
    #[must_use]
    pub fn between(first: LinkAddr, last: LinkAddr) -> Self {
        AddressSpan {
            first: first.0,
            length: last.0.saturating_sub(first.0),
        }
    }

    /// That of an image.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let ranges = || image.sections.iter().map(|section| &section.range);
        let first = ranges().map(|range| range.start).min();
        let last = ranges().map(|range| range.end).max();
        AddressSpan::between(first.unwrap_or_default(), last.unwrap_or_default())
    }

    /// That of two.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let last = |span: Self| span.first.saturating_add(span.length);
        let first = self.first.min(other.first);
        AddressSpan {
            first,
            length: last(self).max(last(other)) - first,
        }
    }

    /// True for what may be an address.
    #[inline]
    #[must_use]
    pub fn holds(self, value: u64) -> bool {
        value.wrapping_sub(self.first) <= self.length
    }

    /// True if a number of 32 bits may be one, with its sign or without.
    #[inline]
    pub(super) fn may_hold(self, number: i32) -> bool {
        let with_sign = i64::from(number).cast_unsigned();
        self.holds(with_sign) || self.holds(u64::from(number.cast_unsigned()))
    }
}

/// Who is shown instructions by [`walk`].
pub trait Visitor {
    /// An instruction.
    fn step(&mut self, step: &Step);

    /// An instruction `start` bytes on that refers to nothing and has no numbers that may be
    /// addresses.
    #[inline(always)]
    fn plain(&mut self, start: usize, skim: Skim) {
        self.step(&Step {
            start,
            skim,
            ..Step::default()
        });
    }
}

impl<F: FnMut(&Step)> Visitor for F {
    fn step(&mut self, step: &Step) {
        self(step);
    }
}

/// Shows every instruction of `bytes`, which are linked at `at`, to `visitor`: the same ones as
/// [`super::decode_all`] finds, with the same references. `numbers` is where the addresses of this
/// image are, and of others for which [`Step::numbers`] is asked.
///
/// Instructions that refer to nothing and do nothing that a [`Skim`] tells are all the same
/// `Step`, but for where they are and how long they are.
#[inline]
pub fn walk(
    image: &Image,
    numbers: AddressSpan,
    at: LinkAddr,
    bytes: &[u8],
    mut visitor: impl Visitor,
) {
    if at.checked_add(bytes.len() as u64).is_none() {
        return;
    }
    if image.machine == Machine::Aarch64 {
        let steps = aarch64::steps(image, at, bytes);
        steps.iter().for_each(|step| visitor.step(step));
        return;
    }
    let table = if image.link == Link::PositionIndependent {
        &MOVABLE
    } else {
        &FIXED
    };
    // The last bytes again, with room behind them.
    const LAST: usize = 15;
    let mut padded = [0; 2 * LAST + 1];
    let last = bytes.len().saturating_sub(LAST);
    padded[..bytes.len() - last].copy_from_slice(&bytes[last..]);
    let mut start = 0;
    while start < bytes.len() {
        let rest = &bytes[start..];
        let code = match rest.first_chunk() {
            Some(code) => code,
            None => padded[start - last..].first_chunk().unwrap_or(&[0; 16]),
        };
        let here = at.0 + start as u64;
        let plain = if image.relocations_kept {
            None
        } else {
            table.skim(code, numbers)
        };
        // An instruction that the bytes do not hold is none.
        let Some(skim) = plain.filter(|skim| usize::from(skim.len) <= rest.len()) else {
            let step = other(image, LinkAddr(here), (code, rest), start);
            start += usize::from(step.skim.len);
            visitor.step(&step);
            continue;
        };
        if skim.traits.has(Traits::BRANCH.with(Traits::RELATIVE)) {
            visitor.step(&Step {
                start,
                skim,
                address: distance(here, rest, skim),
                ..Step::default()
            });
        } else {
            visitor.plain(start, skim);
        }
        start += usize::from(skim.len);
    }
}

/// An instruction that is not as plain as most.
#[inline(never)]
fn other(image: &Image, here: LinkAddr, (code, rest): (&[u8; 16], &[u8]), start: usize) -> Step {
    let known = if image.relocations_kept {
        None
    } else {
        skim(code).filter(|skim| usize::from(skim.len) <= rest.len())
    };
    let Some(skim) = known else {
        return decoded(image, here, rest, start);
    };
    let (address, immediate, numbers) = references(image, here, rest, skim);
    Step {
        start,
        skim,
        address,
        immediate,
        numbers,
    }
}

#[cold]
fn decoded(image: &Image, here: LinkAddr, rest: &[u8], start: usize) -> Step {
    if let Some(word) = table_word(image, here, rest) {
        return Step {
            start,
            // Control never gets there, nor past it.
            skim: Skim {
                len: 4,
                traits: Traits::PADDING,
                ..Skim::default()
            },
            address: word.address,
            ..Step::default()
        };
    }
    let mut decoder = decoder(image, here, rest);
    let mut instruction = Instruction::default();
    decoder.decode_out(&mut instruction);
    if !is_known(image, &instruction) {
        return Step {
            start,
            skim: Skim::BYTE,
            ..Step::default()
        };
    }
    let line = line_of(image, &decoder, instruction);
    Step {
        start,
        skim: Skim::of(&instruction, &decoder.get_constant_offsets(&instruction)),
        address: line.address,
        immediate: line.immediate,
        numbers: Numbers {
            // Where only 32 bits of an address count, they count otherwise.
            unknown: image.link != Link::PositionIndependent
                || instruction.memory_base() == Register::EIP,
            ..Numbers::default()
        },
    }
}

/// What an instruction refers to that jumps by a distance or counts one from its end.
#[inline]
fn distance(here: u64, rest: &[u8], skim: Skim) -> Option<Reference> {
    if skim.traits.has(Traits::BRANCH) {
        return branch(here, rest, skim);
    }
    if !skim.traits.has(Traits::RELATIVE) {
        return None;
    }
    let operand = rest.get(usize::from(skim.displacement)..)?.first_chunk()?;
    let next = here.wrapping_add(u64::from(skim.len));
    Some(Reference {
        kind: ReferenceKind::Relative,
        offset: skim.displacement,
        width: 4,
        target: LinkAddr(next.wrapping_add_signed(i32::from_le_bytes(*operand).into())),
    })
}

#[inline]
fn branch(here: u64, rest: &[u8], skim: Skim) -> Option<Reference> {
    let distance = rest.get(usize::from(skim.immediate)..usize::from(skim.len))?;
    let far = match *distance {
        [near] => i64::from(near.cast_signed()),
        _ => i64::from(i32::from_le_bytes(distance.try_into().ok()?)),
    };
    Some(Reference {
        kind: if skim.traits.has(Traits::CALL) {
            ReferenceKind::Call
        } else {
            ReferenceKind::Jump
        },
        offset: skim.immediate,
        width: skim.len - skim.immediate,
        target: LinkAddr(
            here.wrapping_add(u64::from(skim.len))
                .wrapping_add_signed(far),
        ),
    })
}

fn references(
    image: &Image,
    here: LinkAddr,
    rest: &[u8],
    skim: Skim,
) -> (Option<Reference>, Option<Reference>, Numbers) {
    let mut numbers = Numbers::default();
    let fixed = image.link != Link::PositionIndependent;
    let direct = skim.traits.has(Traits::BRANCH.with(Traits::RELATIVE));
    if !direct && (!fixed || skim.displacement == 0 && skim.immediate == 0) {
        return (None, None, numbers);
    }
    let next = here.0.wrapping_add(u64::from(skim.len));
    let distance = |offset: u8| {
        let bytes = rest.get(usize::from(offset)..)?.first_chunk()?;
        Some(i64::from(i32::from_le_bytes(*bytes)))
    };
    let refer = |kind, offset: u8, width, target: u64| Reference {
        kind,
        offset,
        width,
        target: LinkAddr(target),
    };
    let traits = skim.traits;
    if traits.has(Traits::BRANCH) {
        return (branch(here.0, rest, skim), None, numbers);
    }
    // An address as a number: true for `value` if the number `offset` bytes on may be one.
    let absolute = |offset: u8, value: u64| {
        let place = here.checked_add(offset.into());
        place.is_some_and(|place| may_be_address(image, place, value))
    };
    let mut address = None;
    if skim.displacement != 0 {
        let offset = skim.displacement;
        address = distance(offset).and_then(|far| {
            if traits.has(Traits::RELATIVE) {
                let target = next.wrapping_add_signed(far);
                return Some(refer(ReferenceKind::Relative, offset, 4, target));
            }
            let value = far.cast_unsigned();
            let leads = fixed && absolute(offset, value);
            numbers.displacement = fixed && !leads;
            leads.then(|| refer(ReferenceKind::Absolute, offset, 4, value))
        });
    }
    let mut immediate = None;
    if fixed && traits.has(Traits::NUMBER) {
        let offset = skim.immediate;
        let width = skim.len - offset;
        let value = match distance(offset) {
            _ if width == 8 => {
                let bytes = rest
                    .get(usize::from(offset)..)
                    .and_then(<[u8]>::first_chunk);
                bytes.map(|bytes| u64::from_le_bytes(*bytes))
            }
            Some(far) if traits.has(Traits::SIGNED) => Some(far.cast_unsigned()),
            Some(far) => Some(far.cast_unsigned() & u64::from(u32::MAX)),
            None => None,
        };
        immediate = value
            .filter(|value| absolute(offset, *value))
            .map(|value| refer(ReferenceKind::Absolute, offset, width, value));
        numbers.immediate = immediate.is_none();
    }
    (address, immediate, numbers)
}
