//! The instructions that most code consists of, told by their first bytes alone.
//!
//! Most instructions have no prefix but REX and refer to nothing. For them even
//! [`skim`](super::skim()) does too much: what it says besides the length is next to nothing.
//! Direct jumps and calls are told here as well, and what lies at a distance from the end of the
//! instruction. In images at fixed addresses a number may be an address, unless it is so small or
//! so large that nothing of the image is there, as nearly all of them are.

use super::AddressSpan;
use super::bytes::{head, low};
use super::skim::{Skim, Traits};
use super::tables::{
    CAREFUL, GROUP, MEMORY, MODRM, NO_REX, ONE, PLAIN, PREFIX, TRAITS, TWO, WIDTH, WIDTH_WIDE,
};

/// What is known of each opcode.
#[derive(Debug)]
pub(super) struct Plain {
    one: [u64; 256],
    two: [u64; 256],
    /// Numbers may be addresses.
    fixed: bool,
}

/// For images that run at any address, where numbers are no addresses.
pub(super) static MOVABLE: Plain = Plain::new(false);
/// For images at fixed addresses.
pub(super) static FIXED: Plain = Plain::new(true);

const KNOWN: u64 = 1 << 63;
const HAS_MODRM: u64 = 1;
/// Only with the first of eight registers, or instructions, in the place of one.
const FIRST: u64 = 1 << 1;
/// Not with a REX prefix.
const BARE: u64 = 1 << 2;
/// The immediate operand may be an address.
const NUMBER: u64 = 1 << 3;
/// From this bit on: the width of the immediate operand, and behind it the one with `REX.W`.
const WIDTHS: u32 = 4;
/// From this bit on: in which forms of operands it is something else.
const DENIED: u32 = 16;
/// From this bit on: its traits.
const TELLS: u32 = 32;

const BRANCH: u16 = Traits::BRANCH.0;
/// What is told of an instruction wherever its operands are.
const TOLD: u16 = BRANCH | Traits::CALL.0 | Traits::ENDS.0 | Traits::PADDING.0;

/// In the forms of operands: a register.
const IN_REGISTER: u8 = 16;
/// There is a displacement of 32 bits.
const FAR: u8 = 32;
/// There is perhaps one without a base.
const ODD: u8 = 64;
/// There is one from the end of the instruction.
const FROM_END: u8 = 128;

/// For each byte that tells operands: how long they are with it, and their form.
static FORMS: [u8; 256] = forms();

const fn forms() -> [u8; 256] {
    let mut map = [0; 256];
    let mut modrm = 0;
    while modrm < 256 {
        let base = modrm & 7;
        let indexed = (base == 4) as u8;
        map[modrm] = match modrm >> 6 {
            0 if base == 4 => ODD,
            0 if base == 5 => 5 | FROM_END,
            0 => 1,
            1 => 2 + indexed,
            2 => (5 + indexed) | FAR,
            _ => 1 | IN_REGISTER,
        };
        modrm += 1;
    }
    map
}

impl Plain {
    const fn new(fixed: bool) -> Plain {
        let (mut one, mut two) = ([0; 256], [0; 256]);
        let mut opcode = 0;
        while opcode < 256 {
            // Of these groups the first instruction alone is common.
            let grouped = opcode == 0xc6 || opcode == 0xc7;
            one[opcode] = Plain::entry(ONE[opcode], grouped);
            two[opcode] = Plain::entry(TWO[opcode], opcode == 0x1f);
            opcode += 1;
        }
        // Without the prefix that locks them they are all alike.
        let mut arithmetic = 0x80;
        while arithmetic <= 0x83 {
            one[arithmetic] = Plain::entry(ONE[arithmetic] & !GROUP, false);
            arithmetic += 1;
        }
        Plain { one, two, fixed }
    }

    /// What is known of an opcode; if it is `grouped`, of the first instruction of its group.
    const fn entry(full: u64, grouped: bool) -> u64 {
        let traits = (full >> TRAITS) as u16;
        let number = Traits::NUMBER.0 | Traits::MOV.0;
        let other = CAREFUL & !MEMORY & !NO_REX & if grouped { !GROUP } else { !0 };
        let careful = full & other != 0;
        let odd = traits & !(TOLD | number | Traits::LEA.0) != 0;
        if full & PLAIN == 0 || full & PREFIX != 0 || careful || odd {
            return 0;
        }
        let mut entry = KNOWN;
        if full & MODRM != 0 {
            let register = if full & MEMORY != 0 { IN_REGISTER } else { 0 };
            // Beside a number there is nothing else that is told.
            let both = if traits & number != 0 { FROM_END } else { 0 };
            entry |= HAS_MODRM | ((ODD | register | both) as u64) << DENIED;
        }
        if grouped {
            entry |= FIRST;
        }
        if full & NO_REX != 0 || traits & (BRANCH | Traits::ENDS.0) != 0 {
            entry |= BARE;
        }
        if traits & Traits::NUMBER.0 != 0 {
            entry |= NUMBER;
        }
        entry |= (full >> WIDTH & 15) << WIDTHS;
        entry |= (full >> WIDTH_WIDE & 15) << (WIDTHS + 4);
        entry | ((traits & (TOLD | Traits::LEA.0)) as u64) << TELLS
    }

    /// The instruction at the start of `code`, if it is a jump or call by a distance, refers to
    /// a place at a distance from its end, or refers to nothing: then there is nothing about it
    /// but its length and that it is padding or where control ends. A number outside of
    /// `addresses` is no address.
    #[inline(always)]
    pub(super) fn skim(&self, code: &[u8; 16], addresses: AddressSpan) -> Option<Skim> {
        let word = head(code, 0);
        let extended = u64::from(word & 0xf0 == 0x40);
        let rex = word & extended.wrapping_neg();
        let wide = (rex >> 3 & 1) as u32;
        let mut word = word >> (8 * extended);
        let mut size = extended as usize + 1;
        let mut entry = self.one[low(word)];
        if low(word) == 0x0f {
            word >>= 8;
            size += 1;
            entry = self.two[low(word)];
        }
        let modrm = low(word >> 8);
        let form = FORMS[modrm];
        if entry & KNOWN == 0 || (entry >> DENIED) as u8 & form & 0xf0 != 0 {
            return None;
        }
        if entry & (FIRST | BARE) != 0
            && (entry & FIRST != 0 && modrm & 0x38 != 0 || entry & BARE != 0 && extended != 0)
        {
            return None;
        }
        let there = (entry & HAS_MODRM).wrapping_neg() as u8;
        size += usize::from(form & 15 & there);
        let width = (entry >> (WIDTHS + 4 * wide)) as usize & 15;
        let mut skim = Skim {
            len: (size + width) as u8,
            traits: Traits((entry >> TELLS) as u16 & TOLD),
            ..Skim::default()
        };
        if form & there & FROM_END != 0 {
            let lea = (entry >> TELLS) as u16 & Traits::LEA.0;
            skim.traits.0 |= Traits::RELATIVE.0 | lea;
            skim.displacement = (size - 4) as u8;
            if lea != 0 {
                skim.register = (modrm >> 3 & 7) as u8 | (rex << 1 & 8) as u8;
            }
        } else if skim.traits.0 & BRANCH != 0 {
            skim.immediate = size as u8;
        } else if self.fixed {
            let may_be = |at: usize| {
                let number = code.get(at..).and_then(<[u8]>::first_chunk);
                number.is_none_or(|number| addresses.may_hold(i32::from_le_bytes(*number)))
            };
            let far = form & there & FAR != 0 && may_be(size - 4);
            let number = entry & NUMBER != 0 && (width == 8 || may_be(size));
            if far || number {
                return None;
            }
        }
        Some(skim)
    }
}

/// What is told of an instruction that refers to nothing, jumps by a distance, or refers to what is
/// at a distance from its end; `None` for others. In an image at fixed addresses these are `numbers`
/// that may be addresses.
#[must_use]
pub fn plain(code: &[u8; 16], numbers: Option<AddressSpan>) -> Option<Skim> {
    match numbers {
        Some(addresses) => FIXED.skim(code, addresses),
        None => MOVABLE.skim(code, AddressSpan::default()),
    }
}
