//! A [`Skim`] read off the bytes of an instruction.
//!
//! Most instructions refer to nothing, and of the others only the distance matters. To
//! decode each of them in full costs several times what all the rest of a comparison does.
//! So the common instructions are told here by a table for each map of opcodes: how long they
//! are, and where the numbers are that may lead somewhere. Whatever is rare (other prefixes,
//! vector extensions, groups with holes) is not in the tables, and is left to the decoder.
//!
//! What is said of an instruction is by definition what [`Skim::of`] says of it decoded; a
//! test holds the two against each other for all opcodes, and for whole programs.

use super::skim::{Skim, Traits};
use super::tables::{
    CAREFUL, DATA16, IMMEDIATE, LOCKABLE, MEMORY, MODRM, NO_REX, NUMBERED, ONE, PLAIN, PREFIX,
    REGISTER, REP, REPNE, THREE_3A, THREE_38, TRAITS, TWO, WIDE, WIDTH, WIDTH_SHORT, WIDTH_WIDE,
};

const REX_WIDE: u64 = 8;
const REX_REG: u64 = 4;
const REX_INDEX: u64 = 2;
const REX_BASE: u64 = 1;

/// What the bytes at the start of `code` are; `None` where only the decoder can tell. Bytes
/// behind the instruction do not matter.
///
/// Where the next instruction begins is known only once this one's length is, so that
/// is computed with few loads that wait for each other, and without branches on what the
/// processor cannot foresee.
#[must_use]
#[inline]
pub fn skim(code: &[u8; 16]) -> Option<Skim> {
    let (mut at, mut word) = (0, head(code, 0));
    let (mut prefix, mut segment, mut lock) = (PLAIN, false, false);
    while ONE[low(word)] & PREFIX != 0 {
        match low(word) {
            0x66 if prefix & (PLAIN | DATA16) != 0 => prefix = DATA16,
            0xf3 if prefix == PLAIN => prefix = REP,
            0xf2 if prefix == PLAIN => prefix = REPNE,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 if !segment => segment = true,
            0xf0 if !lock => lock = true,
            _ => return None,
        }
        at += 1;
        if at == 8 {
            return None;
        }
        word = head(code, at);
    }
    let extended = u64::from(word & 0xf0 == 0x40);
    let rex = word & 0xf & extended.wrapping_neg();
    word >>= 8 * extended;
    at += extended as usize;
    let mut map = 0;
    let mut entry = ONE[low(word)];
    if low(word) == 0x0f {
        word >>= 8;
        at += 1;
        (map, entry) = (2, TWO[low(word)]);
        if matches!(low(word), 0x38 | 0x3a) {
            let three = if low(word) == 0x38 {
                &THREE_38
            } else {
                &THREE_3A
            };
            word >>= 8;
            at += 1;
            (map, entry) = (3, three[low(word)]);
        }
    }
    if entry & prefix == 0 {
        return None;
    }
    let operands = Operands::read(word, rex, entry);
    if lock || entry & CAREFUL != 0 {
        if rex | extended != 0 && entry & NO_REX != 0 {
            return None;
        }
        entry = chosen(entry, (map, low(word)), operands.modrm, prefix, lock)?;
    }
    let wide = rex & REX_WIDE != 0;
    let kind = if wide {
        WIDTH_WIDE
    } else if prefix == DATA16 {
        WIDTH_SHORT
    } else {
        WIDTH
    };
    let width = (entry >> kind & 15) as usize;
    let mut traits = Traits((entry >> TRAITS) as u16 | operands.traits);
    let mut immediate = 0;
    at += 1;
    let operand = at + operands.size;
    if entry & NUMBERED != 0 {
        immediate = operand as u8;
        if traits.has(Traits::NUMBER) {
            let register = traits.has(Traits::MOV) && operands.modrm >= 0xc0;
            if width < 4 {
                traits.0 &= !(Traits::NUMBER.0 | Traits::MOV.0);
                immediate = 0;
            } else if entry & WIDE != 0 && !wide && !register {
                traits.0 &= !Traits::NUMBER.0;
                immediate = 0;
            } else if width == 4 && (wide || entry & (WIDE | MODRM) == 0 && low(word) == 0x68) {
                traits.0 |= Traits::SIGNED.0;
            }
        }
    }
    let relative = traits.has(Traits::RELATIVE);
    let far = operands.far && (relative || !segment);
    let mut register = 0;
    if traits.has(Traits::LEA.with(Traits::MOVSXD)) {
        register = if traits.has(Traits::LEA) {
            (operands.modrm >> 3 & 7) as u8 | ((rex & REX_REG) << 1) as u8
        } else if let Some(base) = operands.base {
            base | ((rex & REX_BASE) << 3) as u8
        } else {
            traits.0 &= !Traits::MOVSXD.0;
            0
        };
    }
    let len = operand + width;
    (len <= 15).then_some(Skim {
        len: len as u8,
        displacement: if far { (operand - 4) as u8 } else { 0 },
        immediate,
        register,
        traits,
    })
}

/// Eight bytes of `code`, of which the first comes lowest.
#[inline]
pub(super) fn head(code: &[u8; 16], at: usize) -> u64 {
    let bytes = code.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline]
pub(super) fn low(word: u64) -> usize {
    usize::from(word as u8)
}

/// What stands between the opcode and the immediate operand.
struct Operands {
    /// The byte that tells the operands, whether there is one or not.
    modrm: u64,
    /// All of it, in bytes.
    size: usize,
    /// Its last four bytes are a displacement.
    far: bool,
    /// The number of the register that a place in memory counts from, without its `REX.B`.
    base: Option<u8>,
    traits: u16,
}

impl Operands {
    /// `word` begins with the last byte of the opcode.
    #[inline]
    fn read(word: u64, rex: u64, entry: u64) -> Operands {
        let (modrm, sib) = (word >> 8 & 0xff, word >> 16 & 0xff);
        let there = entry & MODRM;
        let shape = SHAPE[modrm as usize] & there.wrapping_neg() as u8;
        let indexed = u64::from(shape >> 3 & 1);
        let index = sib >> 3 & 7 | (rex & REX_INDEX) << 2;
        let scaled = (indexed != 0) & (index != 4) & (sib >= 0xc0);
        // Without a base there is a displacement.
        let no_base = (indexed != 0) & (modrm < 0x40) & (sib & 7 == 5);
        let displacement = usize::from(shape & 7) | usize::from(no_base) << 2;
        let relative = shape & SHAPE_RELATIVE != 0;
        let base = if indexed != 0 { sib & 7 } else { modrm & 7 };
        let has_base = shape & SHAPE_MEMORY != 0 && !relative && !no_base;
        Operands {
            modrm,
            size: there as usize + indexed as usize + displacement,
            far: displacement == 4,
            base: has_base.then_some(base as u8),
            traits: (u16::from(scaled) * Traits::SCALED.0)
                | (u16::from(relative) * Traits::RELATIVE.0),
        }
    }
}

const SHAPE_INDEXED: u8 = 8;
const SHAPE_RELATIVE: u8 = 16;
const SHAPE_MEMORY: u8 = 32;

/// For each byte that tells operands: how long the displacement is, and what else is there.
static SHAPE: [u8; 256] = shapes();

const fn shapes() -> [u8; 256] {
    let mut map = [0; 256];
    let mut modrm = 0;
    while modrm < 0xc0 {
        let base = modrm & 7;
        let displacement = match modrm >> 6 {
            0 if base == 5 => 4 | SHAPE_RELATIVE,
            0 => 0,
            1 => 1,
            _ => 4,
        };
        let indexed = if base == 4 { SHAPE_INDEXED } else { 0 };
        map[modrm] = displacement | indexed | SHAPE_MEMORY;
        modrm += 1;
    }
    map
}

/// The entry of one instruction of those that an opcode stands for, which `modrm` chooses;
/// `opcode` has the number of its map before it.
#[inline(never)]
fn chosen(entry: u64, opcode: (u8, usize), modrm: u64, prefix: u64, lock: bool) -> Option<u64> {
    let in_register = modrm >= 0xc0;
    if entry & MEMORY != 0 && in_register || entry & REGISTER != 0 && !in_register {
        return None;
    }
    if lock && (in_register || entry & LOCKABLE == 0) {
        return None;
    }
    let number = modrm >> 3 & 7;
    let one_of = |mask: u8| mask >> number & 1 != 0;
    let also = |traits: Traits| entry | u64::from(traits.0) << TRAITS;
    let plain = prefix == PLAIN && !lock;
    match opcode {
        // `cmp` writes nothing that could be locked.
        (0, 0x80 | 0x81 | 0x83) => (!lock || number != 7).then_some(entry),
        (0, 0xc6 | 0xc7) => (number == 0).then_some(entry),
        // The x87: with registers it has many holes.
        (0, 0xd9) => one_of(0b1111_1101).then_some(entry),
        (0, 0xdb) => one_of(0b1010_1111).then_some(entry),
        (0, 0xdd) => one_of(0b1101_1111).then_some(entry),
        (0, 0xf6 | 0xf7) if lock => one_of(0b1100).then_some(entry & !IMMEDIATE),
        (0, 0xf6 | 0xf7) if number < 2 => Some(entry),
        (0, 0xf6 | 0xf7) => Some(entry & !IMMEDIATE),
        (0, 0xfe) => (number < 2).then_some(entry),
        (0, 0xff) => match number {
            0 | 1 => Some(entry),
            2 => plain.then_some(also(Traits::CALL)),
            4 => plain.then_some(also(Traits::THROUGH.with(Traits::ENDS))),
            6 => (!lock).then_some(entry),
            _ => None,
        },
        (2, 0x18) => (number < 4).then_some(entry),
        (2, 0x1e) => (modrm == 0xfa).then_some(entry),
        (2, 0x1f) => (number == 0).then_some(entry),
        (2, 0x71 | 0x72) => one_of(0b0101_0100).then_some(entry),
        (2, 0x73) => one_of(0b1100_1100).then_some(entry),
        (2, 0xba) => (number >= 4 && (!lock || number > 4)).then_some(entry),
        _ => Some(entry),
    }
}
