//! Which instructions of ARM64 depend on where they are, and on what: a small part of "Arm
//! Architecture Reference Manual for A-profile", chapter C4.1 (A64 instruction set encoding).

/// What of an instruction may lead to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// Nothing.
    None,
    /// `b`, `bl`, `b.cond`, `cbz`, `tbz`: where it leads.
    Branch(u64),
    /// `adr`: the address.
    Address(u64),
    /// `adrp`: the first byte of a page.
    Page(u64),
    /// `ldr x0, place`: the place, and how many bytes are read.
    Literal(u64, u8),
    /// A register and a number without a sign, for an `add` or to read or write so many bytes
    /// (0: none of them): where the register holds a page, a place on it or behind it.
    Offset {
        /// The register.
        base: u8,
        /// The number.
        offset: u64,
        /// How many bytes are read or written.
        size: u8,
    },
}

impl Operand {
    /// That of `word`, which stands at `at`, and which of its bits say so.
    pub(super) fn of(word: u32, at: u64) -> (Operand, u32) {
        const IMM26: u32 = 0x03ff_ffff;
        const IMM19: u32 = 0x00ff_ffe0;
        const IMM14: u32 = 0x0007_ffe0;
        const PARTS: u32 = 0x60ff_ffe0;
        const IMM12: u32 = 0x003f_fc00;
        let is = |mask: u32, value: u32| word & mask == value;
        let far = |bits: u32, shift: u32| {
            let number = i64::from(((word >> shift) << (32 - bits)).cast_signed() >> (32 - bits));
            at.wrapping_add_signed(number * 4)
        };
        if is(0x7c00_0000, 0x1400_0000) {
            return (Operand::Branch(far(26, 0)), IMM26);
        }
        // `b.cond`, and `bc.cond`, which differs in a bit that stays.
        if is(0xff00_0000, 0x5400_0000) || is(0x7e00_0000, 0x3400_0000) {
            return (Operand::Branch(far(19, 5)), IMM19);
        }
        if is(0x7e00_0000, 0x3600_0000) {
            return (Operand::Branch(far(14, 5)), IMM14);
        }
        if is(0x1f00_0000, 0x1000_0000) {
            let number = (word >> 5 & 0x7_ffff) << 2 | word >> 29 & 3;
            let number = i64::from((number << 11).cast_signed() >> 11);
            let operand = match word >> 31 {
                0 => Operand::Address(at.wrapping_add_signed(number)),
                _ => Operand::Page((at & !0xfff).wrapping_add_signed(number << 12)),
            };
            return (operand, PARTS);
        }
        if is(0x3b00_0000, 0x1800_0000) {
            let size = literal_size(word);
            return (Operand::Literal(far(19, 5), size), IMM19);
        }
        let base = (word >> 5 & 31) as u8;
        let number = u64::from(word >> 10 & 0xfff);
        if is(0xffc0_0000, 0x9100_0000) {
            let operand = Operand::Offset {
                base,
                offset: number,
                size: 0,
            };
            return (operand, IMM12);
        }
        if is(0x3b00_0000, 0x3900_0000)
            && let Some((scale, size)) = scale(word)
        {
            let operand = Operand::Offset {
                base,
                offset: number << scale,
                size,
            };
            return (operand, IMM12);
        }
        (Operand::None, 0)
    }
}

/// How many bytes `ldr` with a place reads; 0 for `prfm`.
fn literal_size(word: u32) -> u8 {
    match (word >> 26 & 1, word >> 30) {
        (0, 1) => 8,
        (0, 3) => 0,
        (0, _) => 4,
        (_, kind) => 4 << kind.min(2),
    }
}

/// By how much the number of a load or store is shifted, and how many bytes it reads or writes.
fn scale(word: u32) -> Option<(u32, u8)> {
    let (size, is_vector, kind) = (word >> 30, word >> 26 & 1 != 0, word >> 22 & 3);
    match (is_vector, kind, size) {
        // `prfm` only asks for what may be read soon.
        (false, 2, 3) => Some((3, 0)),
        (false, 3, 2 | 3) => None,
        (true, 2 | 3, 0) => Some((4, 16)),
        (true, 2 | 3, _) => None,
        _ => Some((size, 1 << size)),
    }
}
