//! The instructions that most code consists of, told by the length alone.
//!
//! Two of three instructions have no prefix but REX and refer to nothing. For them even
//! [`skim`](super::skim()) does too much: what it says besides the length is nothing. Direct
//! jumps and calls are told here as well.

use super::bytes::{head, low};
use super::skim::{Skim, Traits};
use super::tables::{CAREFUL, MEMORY, MODRM, ONE, PLAIN, PREFIX, TRAITS, TWO, WIDTH, WIDTH_WIDE};

/// What is known of each opcode.
#[derive(Debug)]
pub(super) struct Plain {
    one: [u32; 256],
    two: [u32; 256],
}

/// For images that run at any address, where numbers are no addresses.
pub(super) static MOVABLE: Plain = Plain::new(false);
/// For images at fixed addresses.
pub(super) static FIXED: Plain = Plain::new(true);

const KNOWN: u32 = 1 << 31;
const HAS_MODRM: u32 = 1;
/// From this bit on: the width of the immediate operand, and behind it the one with `REX.W`.
const WIDTHS: u32 = 4;
/// From this bit on: in which forms of operands it is something else.
const DENIED: u32 = 16;
/// From this bit on: what jump it is.
const JUMPS: u32 = 24;

const JUMP: u16 = Traits::BRANCH.0 | Traits::CALL.0 | Traits::ENDS.0;

/// In the forms of operands: a register.
const IN_REGISTER: u8 = 16;
/// There is a displacement of 32 bits.
const FAR: u8 = 32;
/// There is one from the end of the instruction, or perhaps one without a base.
const ODD: u8 = 64;

/// For each byte that tells operands: how long they are with it, and their form.
static FORMS: [u8; 256] = forms();

const fn forms() -> [u8; 256] {
    let mut map = [0; 256];
    let mut modrm = 0;
    while modrm < 256 {
        let base = modrm & 7;
        let indexed = (base == 4) as u8;
        map[modrm] = match modrm >> 6 {
            0 if base == 4 || base == 5 => ODD,
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
            one[opcode] = Plain::entry(ONE[opcode], fixed);
            two[opcode] = Plain::entry(TWO[opcode], fixed);
            opcode += 1;
        }
        Plain { one, two }
    }

    const fn entry(full: u64, fixed: bool) -> u32 {
        let traits = (full >> TRAITS) as u16;
        let number = Traits::NUMBER.0 | Traits::MOV.0;
        let nothing = JUMP | if fixed { 0 } else { number | Traits::LEA.0 };
        let jumps = traits & Traits::BRANCH.0 != 0;
        let ends = traits & Traits::ENDS.0 != 0;
        if full & PLAIN == 0
            || full & PREFIX != 0
            || full & CAREFUL & !MEMORY != 0
            || traits & !nothing != 0
            || ends && !jumps
        {
            return 0;
        }
        let mut entry = KNOWN;
        if full & MODRM != 0 {
            let far = if fixed { FAR } else { 0 };
            let register = if full & MEMORY != 0 { IN_REGISTER } else { 0 };
            entry |= HAS_MODRM | ((ODD | far | register) as u32) << DENIED;
        }
        entry |= ((full >> WIDTH & 15) as u32) << WIDTHS;
        entry |= ((full >> WIDTH_WIDE & 15) as u32) << (WIDTHS + 4);
        entry | ((traits & JUMP) as u32) << JUMPS
    }

    /// The instruction at the start of `code`, if it is a jump or call by a distance, or
    /// refers to nothing: then there is nothing about it but its length.
    #[inline]
    pub(super) fn skim(&self, code: &[u8; 16]) -> Option<Skim> {
        let word = head(code, 0);
        let extended = u32::from(word & 0xf0 == 0x40);
        let wide = word as u32 >> 3 & extended;
        let mut word = word >> (8 * extended);
        let mut size = extended + 1;
        let mut entry = self.one[low(word)];
        if low(word) == 0x0f {
            word >>= 8;
            size += 1;
            entry = self.two[low(word)];
        }
        let form = FORMS[low(word >> 8)];
        if entry & KNOWN == 0 || (entry >> DENIED) as u8 & form & 0x70 != 0 {
            return None;
        }
        let width = entry >> (WIDTHS + 4 * wide) & 15;
        let jump = (entry >> JUMPS) as u16 & JUMP;
        if jump != 0 && extended != 0 {
            return None;
        }
        size += u32::from(form & 15) * (entry & HAS_MODRM);
        Some(Skim {
            len: (size + width) as u8,
            immediate: if jump != 0 { size as u8 } else { 0 },
            traits: Traits(jump),
            ..Skim::default()
        })
    }
}

/// What is told of an instruction that refers to nothing, or jumps by a distance; `None` for
/// others. `fixed` says whether numbers may be addresses.
#[must_use]
pub fn plain(code: &[u8; 16], fixed: bool) -> Option<Skim> {
    let table = if fixed { &FIXED } else { &MOVABLE };
    table.skim(code)
}
