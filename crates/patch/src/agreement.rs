//! May old code call the new function?
//!
//! A frame that is still inside an old version calls the functions that it knows.
//! Where a function of the hot set is called from outside too, unchanged callers prove
//! that the old way of calling it is right for the new one. Where only replaced
//! functions call it, they may have changed their agreement together: a parameter
//! more, or a register that the old one left alone (gcc's -fipa-ra keeps values
//! there across the call).

use std::collections::{BTreeSet, HashMap};

use invivo_compare::{Comparison, Hot, Parts};
use invivo_image::x86_64::{ReferenceKind, decode};
use invivo_image::{EntityId, Image, Place, clone_sorts};

use iced_x86::{FlowControl, InstructionInfoFactory, OpAccess, Register};

/// Registers that any function may change: nine general ones, sixteen vectors.
type Clobbers = u32;
const ALL: Clobbers = (1 << 25) - 1;
/// Calls are followed this deep.
const DEEPEST: u32 = 12;

/// True if whoever calls the old function may call the new one in the same way.
pub(crate) fn is_kept(c: &Comparison<'_>, hot: &Hot) -> bool {
    let (old, new) = (c.base.entity(hot.base.main), c.fixed.entity(hot.fixed.main));
    // Compilers change how a clone is called as they like.
    if [old, new].map(|f| clone_sorts(f.name())) != [BTreeSet::new(), BTreeSet::new()] {
        return false;
    }
    if !hot.is_typed() || hot.prototypes().is_some() {
        return false;
    }
    let kept = clobbers(
        c.base,
        &hot.base,
        Bound::Lower,
        DEEPEST,
        &mut HashMap::new(),
    );
    let changed = clobbers(
        c.fixed,
        &hot.fixed,
        Bound::Upper,
        DEEPEST,
        &mut HashMap::new(),
    );
    changed & !kept == 0
}

/// What to assume where it is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// At least these registers are changed.
    Lower,
    /// At most these are.
    Upper,
}

/// What callees were found to change; a function that is being looked at stands here
/// with what is assumed of it, so that recursion ends.
type Known = HashMap<EntityId, Clobbers>;

fn clobbers(image: &Image, parts: &Parts, bound: Bound, depth: u32, known: &mut Known) -> Clobbers {
    let unknown = if bound == Bound::Upper { ALL } else { 0 };
    if depth == 0 {
        return unknown;
    }
    let mut factory = InstructionInfoFactory::new();
    let mut found = 0;
    for part in parts.ids() {
        let entity = image.entity(part);
        let Some(lines) = decode(image, entity) else {
            return unknown;
        };
        for line in &lines {
            let info = factory.info(&line.instruction);
            let writes = |access: OpAccess| {
                !matches!(
                    access,
                    OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
                )
            };
            let written = info
                .used_registers()
                .iter()
                .filter(|used| writes(used.access()));
            found |= written
                .map(|used| bit(used.register()))
                .fold(0, |all, bit| all | bit);
            let leaves = line.address.filter(|r| {
                let branch = matches!(r.kind, ReferenceKind::Call | ReferenceKind::Jump);
                branch && (r.target < entity.addr || r.target >= entity.end())
            });
            match (line.instruction.flow_control(), leaves) {
                (_, Some(reference)) => {
                    found |= match image.place(reference.target) {
                        Place::In(id, _) if parts.ids().any(|part| part == id) => 0,
                        Place::In(id, 0) => callee(image, id, bound, depth, known),
                        // Another image's function: every compiler assumes the worst.
                        _ => ALL,
                    }
                }
                (FlowControl::IndirectCall, _) => return ALL,
                // A jump table, or a call at the end through a pointer.
                (FlowControl::IndirectBranch, _) => found |= unknown,
                _ => {}
            }
            if found == ALL {
                return ALL;
            }
        }
    }
    found
}

fn callee(image: &Image, id: EntityId, bound: Bound, depth: u32, known: &mut Known) -> Clobbers {
    if let Some(found) = known.get(&id) {
        return *found;
    }
    known.insert(id, if bound == Bound::Upper { ALL } else { 0 });
    // A cold part of the callee is reached by a jump of it and followed there.
    let cold = Vec::new();
    let found = clobbers(image, &Parts { main: id, cold }, bound, depth - 1, known);
    known.insert(id, found);
    found
}

fn bit(register: Register) -> Clobbers {
    let general = [
        Register::RAX,
        Register::RCX,
        Register::RDX,
        Register::RSI,
        Register::RDI,
        Register::R8,
        Register::R9,
        Register::R10,
        Register::R11,
    ];
    let full = register.full_register();
    if let Some(index) = general.iter().position(|r| *r == full) {
        return 1 << index;
    }
    if register.is_vector_register() && full.number() < 16 {
        1 << (9 + full.number())
    } else {
        0
    }
}
