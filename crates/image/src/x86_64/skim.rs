//! The little that a search for references needs of an instruction.

use iced_x86::{CodeSize, ConstantOffsets, Instruction, Mnemonic, OpKind, Register};

use super::{is_padding, jumps_through, takes_address};

/// What an instruction is, as far as references are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skim {
    /// In bytes.
    pub len: u8,
    /// Where its displacement of 32 bits begins, if that may lead to a place; otherwise 0.
    pub displacement: u8,
    /// Where the distance of its jump begins, or an immediate operand that may be an address;
    /// both end where the instruction does. Otherwise 0.
    pub immediate: u8,
    /// The number of the register that `lea` writes to, or that `movsxd` reads through.
    pub register: u8,
    /// All else.
    pub traits: Traits,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits(pub(super) u16);

impl Traits {
    /// Its displacement counts from its own end.
    pub const RELATIVE: Traits = Traits(1);
    /// It jumps or calls by a distance.
    pub const BRANCH: Traits = Traits(1 << 1);
    /// It is a call, direct or not.
    pub const CALL: Traits = Traits(1 << 2);
    /// Control does not reach the next one by itself.
    pub const ENDS: Traits = Traits(1 << 3);
    /// It jumps to what a register or a place in memory holds.
    pub const THROUGH: Traits = Traits(1 << 4);
    /// It does nothing.
    pub const PADDING: Traits = Traits(1 << 5);
    /// Its immediate operand may be an address.
    pub const NUMBER: Traits = Traits(1 << 6);
    /// That operand has 32 bits, and the highest one fills those above.
    pub const SIGNED: Traits = Traits(1 << 7);
    /// It is a `mov` of a number of at least 32 bits.
    pub const MOV: Traits = Traits(1 << 8);
    /// `lea`.
    pub const LEA: Traits = Traits(1 << 9);
    /// It is a `movsxd` from where a register points.
    pub const MOVSXD: Traits = Traits(1 << 10);
    /// Eight times a register is part of its address.
    pub const SCALED: Traits = Traits(1 << 11);
    /// It is no instruction but a byte between them.
    pub const DATA: Traits = Traits(1 << 12);

    /// True if any of `others` is among these.
    #[must_use]
    pub const fn has(self, others: Traits) -> bool {
        self.0 & others.0 != 0
    }

    /// All of these and of `others`.
    #[must_use]
    pub const fn with(self, others: Traits) -> Traits {
        Traits(self.0 | others.0)
    }
}

impl Skim {
    /// A byte that is no instruction.
    pub(crate) const BYTE: Skim = Skim {
        len: 1,
        displacement: 0,
        immediate: 0,
        register: 0,
        traits: Traits::DATA,
    };

    /// What a decoded instruction is.
    #[must_use]
    pub fn of(instruction: &Instruction, offsets: &ConstantOffsets) -> Skim {
        use super::{byte, ends_flow, is_call, is_direct};
        let relative = instruction.is_ip_rel_memory_operand();
        let plain = instruction.segment_prefix() == Register::None;
        let branch = is_direct(instruction);
        let width = offsets.immediate_size();
        let operand = (0..instruction.op_count())
            .map(|op| instruction.op_kind(op))
            .find(|kind| {
                matches!(
                    kind,
                    OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64
                )
            });
        let full = matches!(width, 4 | 8) && operand.is_some();
        let number = full && takes_address(instruction);
        let mnemonic = instruction.mnemonic();
        let base = instruction.memory_base();
        let movsxd = mnemonic == Mnemonic::Movsxd && (base.is_gpr64() || base.is_gpr32());
        // By as much as an address has.
        let by = match instruction.code_size() {
            CodeSize::Code32 => 4,
            _ => 8,
        };
        let scaled =
            instruction.memory_index() != Register::None && instruction.memory_index_scale() == by;
        let mut traits = Traits::default();
        for (is, what) in [
            (relative, Traits::RELATIVE),
            (branch, Traits::BRANCH),
            (is_call(instruction), Traits::CALL),
            (ends_flow(instruction), Traits::ENDS),
            (jumps_through(instruction), Traits::THROUGH),
            (is_padding(instruction), Traits::PADDING),
            (number, Traits::NUMBER),
            (
                number && operand == Some(OpKind::Immediate32to64),
                Traits::SIGNED,
            ),
            (full && mnemonic == Mnemonic::Mov, Traits::MOV),
            (mnemonic == Mnemonic::Lea, Traits::LEA),
            (movsxd, Traits::MOVSXD),
            (scaled, Traits::SCALED),
        ] {
            if is {
                traits = traits.with(what);
            }
        }
        let leads = relative || plain && offsets.displacement_size() == 4;
        let register = match mnemonic {
            Mnemonic::Lea => instruction.op0_register(),
            _ if movsxd => base,
            _ => Register::None,
        };
        Skim {
            len: byte(instruction.len()),
            displacement: if leads {
                byte(offsets.displacement_offset())
            } else {
                0
            },
            immediate: if branch || number {
                byte(offsets.immediate_offset())
            } else {
                0
            },
            register: if register == Register::None {
                0
            } else {
                byte(register.number())
            },
            traits,
        }
    }
}
