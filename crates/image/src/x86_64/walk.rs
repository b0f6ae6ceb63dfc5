//! Code looked through for what it refers to, decoded no further than that takes.

use iced_x86::{Instruction, Register};

use super::plain::{FIXED, MOVABLE};
use super::{
    Reference, ReferenceKind, Skim, Traits, decoder, is_known, line_of, may_be_address, skim,
    table_word,
};
use crate::{Image, Link, LinkAddr};

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

/// Hands every instruction of `bytes`, which are linked at `at`, to `visit`: the same ones as
/// [`super::decode_all`] finds, with the same references.
///
/// Instructions that refer to nothing and do nothing that a [`Skim`] tells are all the same
/// `Step`, but for where they are and how long they are.
#[inline]
pub fn walk(image: &Image, at: LinkAddr, bytes: &[u8], mut visit: impl FnMut(&Step)) {
    if at.checked_add(bytes.len() as u64).is_none() {
        return;
    }
    let table = if image.link == Link::PositionIndependent {
        &MOVABLE
    } else {
        &FIXED
    };
    let mut start = 0;
    while let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) {
        let mut step = Step {
            start,
            ..Step::default()
        };
        let plain = rest.first_chunk().and_then(|code| table.skim(code));
        match plain.filter(|_| !image.relocations_kept) {
            Some(skim) => {
                step.skim = skim;
                if skim.traits.has(Traits::BRANCH) {
                    step.address = branch(at.0 + start as u64, rest, skim);
                }
            }
            None => step = other(image, LinkAddr(at.0 + start as u64), rest, start),
        }
        start += usize::from(step.skim.len);
        visit(&step);
    }
}

/// An instruction that is not as plain as most.
#[inline(never)]
fn other(image: &Image, here: LinkAddr, rest: &[u8], start: usize) -> Step {
    let known = if image.relocations_kept {
        None
    } else {
        match rest.first_chunk() {
            Some(code) => skim(code),
            None => last(rest),
        }
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

/// The same for the last bytes of the code: an instruction that they do not hold is none.
fn last(rest: &[u8]) -> Option<Skim> {
    let mut code = [0; 16];
    code[..rest.len()].copy_from_slice(rest);
    skim(&code).filter(|skim| usize::from(skim.len) <= rest.len())
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
