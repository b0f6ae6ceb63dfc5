//! Which registers a function takes its parameters from, where that is not what everybody does.
//!
//! `ms_abi` and the like change how a function is called and leave its prototype alone, and
//! gcc's debug data do not tell of it. The code does: what it reads before it writes it, in
//! registers that parameters come in, was put there by the caller. Only one side may differ
//! from what the prototype allows; where both do, it is an old agreement.

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory};
use iced_x86::{Mnemonic, OpAccess, OpKind, Register, UsedRegister};
use invivo_image::x86_64::decode;
use invivo_image::{EntityId, Image, SourceFunction, clone_sorts};

use crate::{Comparison, Usage};

/// Where parameters come in, in order, on everything but Windows (psABI).
pub(crate) const PARAMETERS: [Register; 6] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
];

/// Registers that a call leaves as they are (psABI); on Windows two more.
pub(crate) const KEPT: [Register; 6] = [
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// True if a call leaves a register as it is, by the convention of an image.
pub(crate) fn is_kept(image: &Image, register: Register) -> bool {
    KEPT.contains(&register)
        || image.is_windows() && [Register::RSI, Register::RDI].contains(&register)
}

/// True if an instruction that uses a register so may change it.
pub(crate) fn changes(used: &UsedRegister) -> bool {
    !matches!(
        used.access(),
        OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess
    )
}

/// True if an instruction that uses a register so depends on what was in it.
pub(crate) fn reads_value(used: &UsedRegister) -> bool {
    !matches!(
        used.access(),
        OpAccess::Write | OpAccess::None | OpAccess::NoMemAccess
    )
}

/// Says in the prototypes of a pair that one of them takes its parameters in another way. Only of
/// functions that may have callers that nobody sees: of others compilers may change it.
pub(crate) fn tell(
    c: &Comparison<'_>,
    base: (EntityId, &mut SourceFunction),
    fixed: (EntityId, &mut SourceFunction),
) {
    let has_strangers = |image: &Image, usage: &Usage, id| {
        let exported = image.entity(id).names.iter().any(|symbol| symbol.exported);
        (exported || usage.address_is_taken(id)) && clone_sorts(image.entity(id).name()).is_empty()
    };
    if c.base.is_windows()
        || !has_strangers(c.base, &c.base_usage, base.0)
        || !has_strangers(c.fixed, &c.fixed_usage, fixed.0)
    {
        return;
    }
    let unusual = |image, (id, source): &(EntityId, &mut SourceFunction)| {
        let allowed = usize::try_from(source.registers?).ok()?;
        let usual = PARAMETERS.get(..allowed).unwrap_or(&PARAMETERS);
        let mut others = reads(image, *id);
        others.retain(|register| !usual.contains(register));
        Some(others)
    };
    let (Some(before), Some(after)) = (unusual(c.base, &base), unusual(c.fixed, &fixed)) else {
        return;
    };
    for (source, others, other_side) in [(base.1, &before, &after), (fixed.1, &after, &before)] {
        if !others.is_empty() && other_side.is_empty() {
            let names: Vec<String> = others
                .iter()
                .map(|register| format!("{register:?}").to_lowercase())
                .collect();
            let text = format!(", with parameters in {}", names.join(" and "));
            source.prototype += &text;
            source.prototype_text += &text;
        }
    }
}

/// The registers of parameters that a function reads before it writes them, on the way from its
/// entry that takes no branch.
fn reads(image: &Image, function: EntityId) -> Vec<Register> {
    let mut factory = InstructionInfoFactory::new();
    let mut written = Vec::new();
    let mut found = Vec::new();
    for line in decode(image, image.entity(function)).into_iter().flatten() {
        let i = &line.instruction;
        // A register is pushed to keep it, or for the room.
        let kept = matches!(i.mnemonic(), Mnemonic::Push | Mnemonic::Nop);
        let itself = depends_on_nothing(i);
        // What is read is read before anything is written.
        let (mut read, mut changed) = (Vec::new(), Vec::new());
        for used in factory.info(i).used_registers() {
            let register = used.register().full_register();
            let reads = matches!(used.access(), OpAccess::Read | OpAccess::ReadWrite);
            if PARAMETERS.contains(&register) && reads && !kept && !itself {
                read.push(register);
            }
            if used.access() != OpAccess::Read {
                changed.push(register);
            }
        }
        found.extend(read.iter().filter(|register| !written.contains(*register)));
        written.extend(changed);
        if !matches!(
            i.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch
        ) {
            break;
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// True where what is in the register before does not matter: `sbb ecx, ecx`, `or ecx, -1`.
fn depends_on_nothing(i: &Instruction) -> bool {
    let number = |number: u64| i.op_count() == 2 && i.try_immediate(1).is_ok_and(|n| n == number);
    match i.mnemonic() {
        Mnemonic::Xor | Mnemonic::Sub | Mnemonic::Sbb | Mnemonic::Cmp => {
            i.op1_kind() == OpKind::Register
                && i.op0_kind() == OpKind::Register
                && i.op0_register() == i.op1_register()
        }
        Mnemonic::And => number(0),
        Mnemonic::Or => number(u64::MAX) || number(u64::from(u32::MAX)),
        _ => false,
    }
}
