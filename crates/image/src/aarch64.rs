//! ARM64 code: instructions of four bytes, and what each one refers to.
//!
//! Few of them depend on where they are. Of these it is told where they lead; all others are the
//! bits that they are, and what these do is asked by hardly anybody: two instructions with the same
//! bits do the same.

mod lines;
mod linked;
mod operands;
mod pages;
mod registers;
mod sums;
mod ways;

pub(crate) use lines::{decode, lines, steps};
pub(crate) use linked::slot_of_thunk;
use operands::Operand;

/// Where control goes behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next one.
    Next,
    /// To a place or to the next one.
    Conditional,
    /// To a place.
    Jump,
    /// To a function, and back.
    Call,
    /// To what a register holds, and back.
    IndirectCall,
    /// To what a register holds.
    IndirectJump,
    /// To the caller.
    Return,
    /// Nowhere: the program is stopped.
    Trap,
}

impl Flow {
    fn of(word: u32) -> Flow {
        let is = |mask: u32, value: u32| word & mask == value;
        if is(0xfc00_0000, 0x1400_0000) {
            return Flow::Jump;
        }
        if is(0xfc00_0000, 0x9400_0000) {
            return Flow::Call;
        }
        // `b.cond`, `cbz`, `tbz`.
        if is(0xff00_0000, 0x5400_0000) || is(0x7c00_0000, 0x3400_0000) {
            return Flow::Conditional;
        }
        if is(0xfe00_0000, 0xd600_0000) {
            return match word >> 21 & 7 {
                0 => Flow::IndirectJump,
                1 => Flow::IndirectCall,
                _ => Flow::Return,
            };
        }
        // `brk`, but for the one that debuggers let go on; `hlt`; `udf`.
        const BREAKPOINT: u32 = 0xd43e_0000;
        let traps = is(0xffe0_001f, 0xd420_0000) || is(0xffe0_001f, 0xd440_0000);
        if traps && word != BREAKPOINT || word >> 16 == 0 {
            return Flow::Trap;
        }
        Flow::Next
    }

    fn is_branch(self) -> bool {
        matches!(self, Flow::Conditional | Flow::Jump)
    }

    /// True if control never gets to the next instruction by itself.
    #[must_use]
    pub fn ends(self) -> bool {
        use Flow::{IndirectJump, Jump, Return, Trap};
        matches!(self, Jump | IndirectJump | Return | Trap)
    }
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// All of it.
    pub bits: u32,
    /// What of it does not depend on where it is and where it leads.
    pub told: u32,
    /// Where control goes behind it.
    pub flow: Flow,
    /// How many bytes it reads or writes at the place that it refers to.
    pub size: u8,
    /// It reckons with an address in a way that is not known, so nobody knows what it means.
    pub is_unknown: bool,
}

impl Word {
    /// True for `nop`, and for zeros, with which linkers fill up.
    #[must_use]
    pub fn is_padding(&self) -> bool {
        is_padding(self.bits)
    }

    /// The number that it puts into a register, for `movz` and `movn`.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        let number = u64::from(self.bits >> 5 & 0xffff) << (16 * (self.bits >> 21 & 3));
        match self.bits >> 23 & 0x1ff {
            0b1_1010_0101 => Some(number),
            0b0_1010_0101 => Some(number & 0xffff_ffff),
            _ => None,
        }
    }

    /// The register that it reads or writes through at a distance, with that one; for instructions
    /// that refer to no place.
    #[must_use]
    pub fn displaced(&self) -> Option<(u8, i64)> {
        let word = self.bits;
        let base = (word >> 5 & 31) as u8;
        if let (Operand::Offset { offset, size, .. }, _) = Operand::of(word, 0)
            && word & 0x3b00_0000 == 0x3900_0000
            && size > 0
        {
            return Some((base, i64::try_from(offset).ok()?));
        }
        let signed = |shift: u32, bits: u32| {
            i64::from(((word >> shift) << (32 - bits)).cast_signed() >> (32 - bits))
        };
        // `ldur`, `ldp`, and their like that step.
        if word & 0x3b20_0000 == 0x3800_0000 {
            return Some((base, signed(12, 9)));
        }
        if word & 0x3a00_0000 == 0x2800_0000 {
            let scale = match word >> 26 & 1 {
                0 => 2 + (word >> 31),
                _ => 2 + (word >> 30).min(2),
            };
            return Some((base, signed(15, 7) << scale));
        }
        // Where a register is added, or nothing, there is no distance.
        None
    }

    /// True if it reads or writes through a register.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        // A place in the code has no register.
        self.bits >> 25 & 5 == 4 && self.bits & 0x3b00_0000 != 0x1800_0000
    }

    /// The register through which it would read or write.
    #[must_use]
    pub fn base(&self) -> u8 {
        (self.bits >> 5 & 31) as u8
    }

    /// True if it moves the stack pointer.
    #[must_use]
    pub fn moves_stack(&self) -> bool {
        const SP: u32 = 31;
        let word = self.bits;
        let (to, base) = (word & 31, word >> 5 & 31);
        // `add`, `sub` and `and` with a number, `add` and `sub` with a register that is extended.
        let reckons = word & 0x3f80_0000 == 0x1100_0000
            || word & 0x3fe0_0000 == 0x0b20_0000
            || word & 0x1f80_0000 == 0x1200_0000 && word >> 29 & 3 != 3;
        let steps = word & 0x3b20_0400 == 0x3800_0400 || word & 0x3a80_0000 == 0x2880_0000;
        reckons && to == SP || steps && base == SP
    }

    /// True if two registers of 64 bits are compared.
    #[must_use]
    pub fn compares(&self) -> bool {
        let is = |mask: u32, value: u32| self.bits & mask == value;
        is(0xff20_001f, 0xeb00_001f) || is(0xffe0_001f, 0xeb20_001f) || is(0xbfe0_0c00, 0xba40_0000)
    }
}

fn is_padding(word: u32) -> bool {
    const NOP: u32 = 0xd503_201f;
    word == NOP || word == 0
}
