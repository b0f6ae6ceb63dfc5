//! What registers hold: numbers that were read at a place, and constants.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use invivo_image::Image;
use invivo_image::x86_64::Line;

use super::kept::Holder;
use crate::conventions::is_kept;
use crate::told::is_immediate;

/// What a register holds that was read at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
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
#[derive(Clone, Default)]
pub(super) struct Registers {
    pub(super) read: BTreeMap<Register, Read>,
    /// The bytes of a constant.
    pub(super) constant: BTreeMap<Register, Vec<u8>>,
    /// Those that point to where errors are told.
    pub(super) errno: BTreeSet<Register>,
}

impl Registers {
    /// What is known of both ways to an instruction; nothing is known of one that nobody saw.
    pub(super) fn met(one: Option<Registers>, other: Option<Registers>) -> Registers {
        let (mut one, other) = match (one, other) {
            (Some(one), Some(other)) => (one, other),
            (one, other) => return one.or(other).unwrap_or_default(),
        };
        one.read.retain(|at, read| other.read.get(at) == Some(read));
        one.errno.retain(|at| other.errno.contains(at));
        one.constant
            .retain(|at, bytes| other.constant.get(at) == Some(bytes));
        one
    }

    pub(super) fn forget(&mut self, register: Register) {
        self.read.remove(&register.full_register());
        self.constant.remove(&register.full_register());
        self.errno.remove(&register.full_register());
    }

    /// A called function leaves some registers as they are.
    pub(super) fn keep_over_call(&mut self, image: &Image) {
        self.read.retain(|at, _| is_kept(image, *at));
        self.constant.retain(|at, _| is_kept(image, *at));
        self.errno.retain(|at| is_kept(image, *at));
    }

    /// The register that an instruction has point to where errors are told.
    pub(super) fn copies_errno(&self, line: &Line) -> Option<Register> {
        let i = &line.instruction;
        let moves = i.mnemonic() == Mnemonic::Mov && i.op1_kind() == OpKind::Register;
        let is_errno = moves && self.errno.contains(&i.op1_register());
        (is_errno && i.op0_kind() == OpKind::Register).then(|| i.op0_register())
    }

    /// What a register or a part of it holds that was read.
    pub(super) fn of(&self, register: Register) -> Option<Read> {
        let mut read = *self.read.get(&register.full_register())?;
        if is_second_byte(register) {
            read.shift += 8;
            read.whole = false;
        }
        Some(read)
    }

    /// The register that holds behind an instruction what was read, and what that is.
    pub(super) fn becomes(&self, line: &Line, holder: Option<Holder>) -> Option<(Register, Read)> {
        let i = &line.instruction;
        let loaded = |from| Read {
            from,
            shift: 0,
            set: 0,
            whole: true,
        };
        // `lock xadd` leaves there what was in memory.
        if i.mnemonic() == Mnemonic::Xadd && i.op0_kind() == OpKind::Memory {
            return Some((i.op1_register().full_register(), loaded(holder?)));
        }
        if i.op_count() != 2 || i.op0_kind() != OpKind::Register {
            return None;
        }
        let to = i.op0_register().full_register();
        if matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx) {
            let copied = || self.of(i.op1_register());
            return Some((to, holder.map(loaded).or_else(copied)?));
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
        Some((to, read))
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
    // A register that is taken from itself is zero.
    let is_own = i.op1_kind() == OpKind::Register && i.op1_register() == i.op0_register();
    if is_own
        && matches!(
            i.mnemonic(),
            Mnemonic::Xor | Mnemonic::Pxor | Mnemonic::Xorps
        )
    {
        return Some(vec![0; 16]);
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
            | Mnemonic::Vmovq
            | Mnemonic::Vmovd
            | Mnemonic::Vmovaps
            | Mnemonic::Vmovups
            | Mnemonic::Vmovdqa
            | Mnemonic::Vmovdqu
    )
}

/// How many bytes the memory operand has, or the first register.
pub(super) fn size(i: &Instruction) -> usize {
    match i.memory_size().size() {
        0 => i.op0_register().size(),
        size => size,
    }
}

/// All bits of the first operand.
pub(super) fn mask(i: &Instruction) -> u64 {
    let wide = u32::try_from(size(i)).unwrap_or(8).saturating_mul(8);
    u64::MAX
        .checked_shr(64_u32.saturating_sub(wide))
        .unwrap_or(0)
}

/// The number that is the second operand, as wide as the first one.
pub(super) fn number(line: &Line) -> Option<u64> {
    let i = &line.instruction;
    let is_number = i.op_count() == 2 && is_immediate(i.op1_kind()) && line.immediate.is_none();
    is_number.then(|| i.immediate(1) & mask(i))
}
