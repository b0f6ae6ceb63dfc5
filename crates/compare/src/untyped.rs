//! New code of which no debug data tell the types.
//!
//! A source file that was compiled without types (`-g0`, `-g1`, `-gline-tables-only`), and each
//! one in assembly, may know structures whose layout changed, and nothing shows it. Code without
//! types is right only where it does with its data what it did before (the same instructions,
//! which refer to something else), or where it gets at none: what compilers put between
//! functions, such as thunks that jump on.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{DebugData, EntityId, Image, SourceFunction, demangle};

use crate::Comparison;
use crate::hot::Found;

/// A function whose types one of the images does not tell.
#[derive(Clone, Debug)]
pub(crate) struct Untyped {
    /// For a person.
    pub(crate) name: String,
    /// `base`, `fixed`.
    pub(crate) which: &'static str,
    /// It was written in assembly, which knows no types.
    pub(crate) assembly: bool,
}

/// Functions of the patch whose types are not told where an image tells types at all.
pub(crate) fn find(
    c: &Comparison<'_>,
    found: &Found,
    base: Option<&DebugData<'_>>,
    fixed: Option<&DebugData<'_>>,
) -> Vec<Untyped> {
    let mut untyped = Vec::new();
    let mut tell = |which, (image, debug): (&Image, Option<&DebugData<'_>>), id| {
        let entity = image.entity(id);
        let facts = debug.and_then(|debug| debug.compiled_at(entity.addr));
        untyped.push(Untyped {
            name: demangle(entity.name()),
            which,
            assembly: facts.is_some_and(|facts| facts.producer.starts_with("GNU AS")),
        });
    };
    let (one, other) = ((c.base, base), (c.fixed, fixed));
    for hot in &found.hot {
        if hot.same_instructions || hot.fixed.ids().all(|part| is_glue(c.fixed, part)) {
            continue;
        }
        let known = |source: &Option<SourceFunction>| source.as_ref().is_some_and(|s| s.typed);
        if tells(one) && !known(&hot.base_source) {
            tell("base", one, hot.base.main);
        } else if tells(other) && !known(&hot.fixed_source) {
            tell("fixed", other, hot.fixed.main);
        }
    }
    for id in found.added.iter().copied().filter(|_| tells(other)) {
        let at = c.fixed.entity(id).addr;
        // A function of the compiler's own needs no entry where its source file has types.
        let known = match fixed {
            Some(debug) => debug.is_typed_at(at),
            None => c.fixed.pdb_function(at).is_some(),
        };
        if !known && !is_glue(c.fixed, id) {
            tell("fixed", other, id);
        }
    }
    untyped
}

/// An image that tells no types at all is refused as a whole.
fn tells((image, debug): (&Image, Option<&DebugData<'_>>)) -> bool {
    debug.is_some() || image.pdb.is_some()
}

/// True for code that gets at no data but its own on the stack, and computes no addresses.
fn is_glue(image: &Image, id: EntityId) -> bool {
    let lines = decode(image, image.entity(id));
    let moves_on = |line: &Line| line.word.is_none() && moves_on(&line.instruction);
    // Of ARM64 no code is known to be that plain but the linker's jumps to other images.
    lines.is_some_and(|lines| lines.iter().all(moves_on))
        || image.slot_of_thunk(image.entity(id).addr).is_some()
}

fn moves_on(i: &Instruction) -> bool {
    let plain = |kind: OpKind| {
        matches!(
            kind,
            OpKind::Register
                | OpKind::NearBranch16
                | OpKind::NearBranch32
                | OpKind::NearBranch64
                | OpKind::Immediate8
                | OpKind::Immediate8_2nd
                | OpKind::Immediate16
                | OpKind::Immediate32
                | OpKind::Immediate64
                | OpKind::Immediate8to16
                | OpKind::Immediate8to32
                | OpKind::Immediate8to64
                | OpKind::Immediate32to64
        )
    };
    let memory = i.op_kinds().any(|kind| !plain(kind));
    let here = i.op_kinds().any(|kind| kind == OpKind::Memory);
    let on_stack = here
        && i.memory_base().full_register() == Register::RSP
        && i.memory_index() == Register::None
        && i.segment_prefix() == Register::None;
    let through_slot = here && i.is_ip_rel_memory_operand();
    // No address fits into 32 bits.
    let narrow = || {
        let kinds = i.op_kinds().zip(0..);
        let mut registers = kinds.filter(|(kind, _)| *kind == OpKind::Register);
        i.op_count() > 0 && registers.all(|(_, op)| i.op_register(op).size() <= 4)
    };
    match i.mnemonic() {
        Mnemonic::Nop
        | Mnemonic::Endbr64
        | Mnemonic::Endbr32
        | Mnemonic::Ret
        | Mnemonic::Ud2
        | Mnemonic::Int3 => true,
        Mnemonic::Call | Mnemonic::Jmp => !memory || through_slot,
        Mnemonic::Lea => through_slot || narrow(),
        Mnemonic::Push | Mnemonic::Pop => !memory,
        Mnemonic::Mov | Mnemonic::Xor if !memory || on_stack => true,
        Mnemonic::Add | Mnemonic::Sub if !memory && i.op0_register() == Register::RSP => true,
        _ if i.is_jcc_short_or_near() => true,
        _ => !memory && narrow(),
    }
}
