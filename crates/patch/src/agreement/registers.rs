//! Registers in which functions pass something to each other.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// Registers that any function may change: nine general ones, sixteen vectors.
pub(super) type Registers = u32;

pub(super) const ALL: Registers = (1 << 25) - 1;
const GENERAL: [Register; 9] = [
    Register::RAX,
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];
/// DWARF's numbers of the same (psABI, figure 3.36).
const DWARF: [u16; 9] = [0, 5, 4, 1, 2, 8, 9, 10, 11];

/// How many vectors were used by a call with any number of parameters.
pub(super) const RAX: Registers = 1;
/// Where the caller tells a place for what is returned.
pub(super) const RDI: Registers = 1 << 1;
/// Where parameters come in: six general registers, eight vectors.
pub(super) const PARAMETERS: Registers = 0b111_1110 | 0xff << 9;
/// What the psABI lets a caller pass.
pub(super) const PASSED: Registers = PARAMETERS | RAX;
/// Where results are: `rax`, `rdx`, two vectors.
pub(super) const RETURNED: Registers = RAX | 1 << 3 | 0b11 << 9;

/// The first general registers that parameters come in.
pub(super) fn first_parameters(count: usize) -> Registers {
    (0..count.min(6)).fold(0, |all, index| all | 1 << (index + 1))
}

pub(super) fn bit(register: Register) -> Registers {
    let full = register.full_register();
    if let Some(index) = GENERAL.iter().position(|r| *r == full) {
        return 1 << index;
    }
    if register.is_vector_register() && full.number() < 16 {
        1 << (9 + full.number())
    } else {
        0
    }
}

/// The register that DWARF calls so.
pub(super) fn by_dwarf(number: u16) -> Registers {
    match number {
        17..=32 => 1 << (9 + number - 17),
        _ => DWARF
            .iter()
            .position(|n| *n == number)
            .map_or(0, |index| 1 << index),
    }
}

/// What an instruction does with registers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touched {
    /// It depends on these.
    pub(super) read: Registers,
    /// Nothing is left of what was in these.
    pub(super) replaced: Registers,
    /// These may hold something else behind it.
    pub(super) changed: Registers,
}

pub(super) fn touched(info: &mut InstructionInfoFactory, i: &Instruction) -> Touched {
    let mut found = Touched::default();
    for used in info.info(i).used_registers() {
        let (register, bit) = (used.register(), bit(used.register()));
        let access = used.access();
        if matches!(
            access,
            OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        ) {
            found.read |= bit;
        }
        if !matches!(
            access,
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
        ) {
            found.changed |= bit;
        }
        // The lower half of a general register replaces the upper one as well.
        if access == OpAccess::Write && register.size() >= 4 {
            found.replaced |= bit;
        }
    }
    if takes_room(i) || depends_on_nothing(i) {
        found.read = 0;
    }
    if leaves_upper_part(i) {
        let to = bit(i.op0_register());
        let also = i.op_kind(1) == OpKind::Register && bit(i.op_register(1)) == to;
        found.read &= if also { ALL } else { !to };
        found.replaced |= to;
    }
    if depends_on_nothing(i) {
        found.replaced |= found.changed;
    }
    found
}

/// True for `push rax`, with which compilers make room.
fn takes_room(i: &Instruction) -> bool {
    i.mnemonic() == Mnemonic::Push
        && i.op0_kind() == OpKind::Register
        && bit(i.op0_register()) == RAX
}

/// True for what puts one number into a vector and leaves the rest, which nobody looks at.
fn leaves_upper_part(i: &Instruction) -> bool {
    matches!(
        i.mnemonic(),
        Mnemonic::Cvtsi2sd
            | Mnemonic::Cvtsi2ss
            | Mnemonic::Cvtss2sd
            | Mnemonic::Cvtsd2ss
            | Mnemonic::Sqrtsd
            | Mnemonic::Sqrtss
    )
}

/// True where what is in the register before does not matter.
fn depends_on_nothing(i: &Instruction) -> bool {
    let same = i.op_count() >= 2
        && (0..i.op_count()).all(|at| i.op_kind(at) == OpKind::Register)
        && i.op_register(0) == i.op_register(1);
    same && matches!(
        i.mnemonic(),
        Mnemonic::Xor
            | Mnemonic::Sub
            | Mnemonic::Sbb
            | Mnemonic::Pxor
            | Mnemonic::Xorps
            | Mnemonic::Xorpd
            | Mnemonic::Pcmpeqb
            | Mnemonic::Pcmpeqd
    )
}
