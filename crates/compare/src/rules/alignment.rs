//! R-SIZE, continued: where a variable that lives in the process begins.
//!
//! Compilers align a variable as the widest access to it wants it. New code that writes 16 bytes of it at
//! once (`movaps`) faults where the running one begins in the middle of them.

use std::collections::BTreeSet;

use iced_x86::{Instruction, Mnemonic, Register};
use invivo_image::x86_64::{Line, decode, demanded_alignment};
use invivo_image::{EntityId, EntityKind, LinkAddr, Place, Slot, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule, is_variable};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    let mut told: BTreeSet<EntityId> = BTreeSet::new();
    let hot = c.hot.iter().flat_map(|hot| hot.fixed.ids());
    let added = c
        .added
        .iter()
        .flat_map(|id| c.fixed_parts(*id).ids().collect::<Vec<_>>());
    for by in hot.chain(added) {
        let lines = decode(c.fixed, c.fixed.entity(by)).unwrap_or_default();
        for (variable, offset, demand) in demands(c, &lines) {
            let Some(base) = c.pairs.base_of(variable) else {
                continue;
            };
            let at = c.base.entity(base).addr.0.wrapping_add(offset);
            // A constant that changed is copied, as it is aligned in the fixed image.
            let is_bound = is_variable(c.base, base) || meaning.same_object(base, variable);
            if at.is_multiple_of(demand) || !is_bound || !told.insert(base) {
                continue;
            }
            findings.push(Finding::refuse(
                Rule::Size,
                demangle(c.base.entity(base).name()),
                format!(
                    "begins at {} in the running image, and {} has an instruction that faults \
                     unless what it uses of it is aligned to {demand} bytes; the running one cannot \
                     move",
                    LinkAddr(c.base.entity(base).addr.0),
                    demangle(c.fixed.entity(by).name())
                ),
            ));
        }
    }
}

/// Variables of which code demands that a place in them is aligned: the place, and to how many bytes.
fn demands(c: &Comparison<'_>, lines: &[Line]) -> Vec<(EntityId, u64, u64)> {
    let mut found = Vec::new();
    // The greatest that anything demands where a register says.
    let mut by_register = 0;
    let mut addresses = Vec::new();
    for line in lines {
        let demand = demanded_alignment(&line.instruction);
        let place = line.references().find_map(|r| variable(c, r.target));
        match (demand, place) {
            (Some(demand), Some((id, offset))) => found.push((id, offset, demand)),
            (Some(demand), None) if !is_stack(&line.instruction) => {
                by_register = demand.max(by_register);
            }
            (None, Some((id, offset)))
                if line.immediate.is_some() || line.instruction.mnemonic() == Mnemonic::Lea =>
            {
                addresses.push((id, offset));
            }
            _ => {}
        }
    }
    if by_register > 0 {
        // What is aligned so in the fixed image may be what the instruction means.
        let may_be = addresses.into_iter().filter(|(id, offset)| {
            let at = c.fixed.entity(*id).addr.0.wrapping_add(*offset);
            at.is_multiple_of(by_register)
        });
        found.extend(may_be.map(|(id, offset)| (id, offset, by_register)));
    }
    found
}

fn variable(c: &Comparison<'_>, at: LinkAddr) -> Option<(EntityId, u64)> {
    let at = match c.fixed.place(at) {
        Place::Slot(Slot::Pointer(to)) => to,
        _ => at,
    };
    match c.fixed.place(at) {
        Place::In(id, offset) => {
            (c.fixed.entity(id).kind == EntityKind::Object).then_some((id, offset))
        }
        _ => None,
    }
}

fn is_stack(instruction: &Instruction) -> bool {
    let base = instruction.memory_base();
    matches!(
        base,
        Register::RSP | Register::RBP | Register::ESP | Register::EBP
    )
}
