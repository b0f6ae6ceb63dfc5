//! Which offsets new code uses that old code did not.
//!
//! A cast gets at data of a type without any variable of it, so the debug data do not say
//! that a function does so. But it needs an instruction with the offset of the member;
//! where the old function has the same one, the member is where it was.

use std::collections::{BTreeSet, HashMap};

use iced_x86::{MemorySize, Mnemonic, Register};
use invivo_image::x86_64::decode;
use invivo_image::{EntityId, Image};

use crate::Comparison;

/// The stack pointer of ARM64.
const STACK: u8 = 31;

type Use = (Mnemonic, MemorySize, i64);

/// Offsets from a register in instructions that only the new functions have.
pub(crate) fn offsets(c: &Comparison<'_>) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    for hot in &c.hot {
        let old = uses(c.base, hot.base.ids());
        let new = uses(c.fixed, hot.fixed.ids());
        let fresh = new
            .into_iter()
            .filter(|(used, count)| old.get(used).is_none_or(|old| old < count));
        found.extend(fresh.map(|((_, _, offset), _)| offset));
    }
    for function in &c.added {
        let new = uses(c.fixed, c.fixed_parts(*function).ids());
        found.extend(new.into_keys().map(|(_, _, offset)| offset));
    }
    found
}

fn uses(image: &Image, parts: impl Iterator<Item = EntityId>) -> HashMap<Use, usize> {
    let mut found = HashMap::new();
    for part in parts {
        for line in decode(image, image.entity(part)).into_iter().flatten() {
            let i = &line.instruction;
            if let Some(word) = line.word {
                let through = word.displaced().filter(|(base, _)| *base != STACK);
                if let Some((_, offset)) = through.filter(|_| line.address.is_none()) {
                    let used = (i.mnemonic(), MemorySize::Unknown, offset);
                    *found.entry(used).or_default() += 1;
                }
                continue;
            }
            let base = i.memory_base();
            let on_stack = base.full_register() == Register::RSP;
            if base == Register::None || base == Register::RIP || on_stack {
                continue;
            }
            let offset = i.memory_displacement64().cast_signed();
            let used = (i.mnemonic(), i.memory_size(), offset);
            *found.entry(used).or_default() += 1;
        }
    }
    found
}
