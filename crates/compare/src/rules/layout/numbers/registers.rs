//! What registers hold: numbers that were read at a place, and constants.

use std::collections::BTreeMap;

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use invivo_image::Image;
use invivo_image::x86_64::Line;

use super::kept::Holder;
use crate::told::is_immediate;

/// What a register holds that was read at a place.
#[derive(Clone, Copy)]
pub(super) struct Read {
    pub(super) from: Holder,
    /// How far it was moved to the right since.
    pub(super) shift: u32,
    /// The bits that were set in it since.
    pub(super) set: u64,
    /// True if it is just what was read.
    pub(super) whole: bool,
}

/// What registers hold at an instruction.
#[derive(Default)]
pub(super) struct Registers {
    pub(super) read: BTreeMap<Register, Read>,
    /// The bytes of a constant.
    pub(super) constant: BTreeMap<Register, Vec<u8>>,
}

impl Registers {
    /// What a register or a part of it holds that was read.
    pub(super) fn of(&self, register: Register) -> Option<Read> {
        let mut read = *self.read.get(&register.full_register())?;
        if is_second_byte(register) {
            read.shift += 8;
            read.whole = false;
        }
        Some(read)
    }

    /// What the first operand holds behind an instruction, if that was read.
    pub(super) fn becomes(&self, line: &Line, holder: Option<Holder>) -> Option<Read> {
        let i = &line.instruction;
        if i.op_count() != 2 || i.op0_kind() != OpKind::Register {
            return None;
        }
        if matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx) {
            let loaded = |from| Read {
                from,
                shift: 0,
                set: 0,
                whole: true,
            };
            let copied = || self.of(i.op1_register());
            return holder.map(loaded).or_else(copied);
        }
        let mut read = self.of(i.op0_register())?;
        let number = number(line)?;
        let set = match i.mnemonic() {
            Mnemonic::And => 0,
            Mnemonic::Or => number,
            Mnemonic::Bts => bit(i, number),
            Mnemonic::Shr => {
                read.shift = read.shift.checked_add(u32::try_from(number).ok()?)?;
                0
            }
            _ => return None,
        };
        read.set |= set.checked_shl(read.shift).unwrap_or(0);
        if is_second_byte(i.op0_register()) {
            read.shift -= 8;
        }
        read.whole = false;
        Some(read)
    }
}

/// The constant that an instruction loads into its first operand.
pub(super) fn constant(image: &Image, line: &Line) -> Option<Vec<u8>> {
    let i = &line.instruction;
    if i.op_count() != 2 || i.op0_kind() != OpKind::Register {
        return None;
    }
    if let Some(number) = number(line).filter(|_| i.mnemonic() == Mnemonic::Mov) {
        return Some(number.to_le_bytes().to_vec());
    }
    let from = line
        .address
        .filter(|_| moves(i) && i.op1_kind() == OpKind::Memory)?;
    let is_constant = image.is_constant_at(from.target);
    let bytes = is_constant.then(|| image.bytes(from.target, size(i) as u64));
    bytes.flatten().map(<[u8]>::to_vec)
}

/// True for the registers that are the second byte of another one.
fn is_second_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    )
}

/// The bit that has a number in an operand.
pub(super) fn bit(i: &Instruction, number: u64) -> u64 {
    let wide = u64::try_from(size(i)).unwrap_or(8).max(1) * 8;
    1 << (number % wide.min(64))
}

/// True for an instruction that moves all of a register to memory, or from there.
pub(super) fn moves(i: &Instruction) -> bool {
    matches!(
        i.mnemonic(),
        Mnemonic::Mov
            | Mnemonic::Movq
            | Mnemonic::Movd
            | Mnemonic::Movaps
            | Mnemonic::Movups
            | Mnemonic::Movdqa
            | Mnemonic::Movdqu
    )
}

/// How many bytes the memory operand has, or the first register.
pub(super) fn size(i: &Instruction) -> usize {
    match i.memory_size().size() {
        0 => i.op0_register().size(),
        size => size,
    }
}

/// The number that is the second operand, as wide as the first one.
pub(super) fn number(line: &Line) -> Option<u64> {
    let i = &line.instruction;
    let is_number = i.op_count() == 2 && is_immediate(i.op1_kind()) && line.immediate.is_none();
    let wide = u32::try_from(size(i)).ok()?.saturating_mul(8);
    let mask = u64::MAX
        .checked_shr(64_u32.saturating_sub(wide))
        .unwrap_or(0);
    is_number.then(|| i.immediate(1) & mask)
}
