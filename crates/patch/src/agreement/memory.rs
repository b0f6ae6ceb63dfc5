//! Which variables a function writes to.
//!
//! gcc's -fipa-modref keeps a variable in a register, or takes a `static` that nobody writes to
//! for a constant, across calls of functions that leave it alone.

use std::collections::BTreeSet;

use invivo_image::{EntityId, EntityKind, Place};

use iced_x86::{InstructionInfoFactory, OpAccess};

use super::body::Callee;
use super::side::Side;

/// Functions that are looked through for one, at most.
const MOST: usize = 1024;

impl Side<'_> {
    /// Variables that `function` and those that it calls write to by name.
    pub(super) fn written(&mut self, function: EntityId) -> BTreeSet<EntityId> {
        let mut info = InstructionInfoFactory::new();
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::from([function]);
        let mut waiting = vec![function];
        while let Some(function) = waiting.pop() {
            let Some(body) = self.body(function) else {
                continue;
            };
            for (line, callee) in body.lines.iter().zip(&body.callees) {
                if let Some(Callee::Known(callee)) = callee
                    && seen.len() < MOST
                    && seen.insert(*callee)
                {
                    waiting.push(*callee);
                }
                let Some(to) = line.address else { continue };
                let reads = |access| matches!(access, OpAccess::Read | OpAccess::CondRead);
                let places = info.info(&line.instruction).used_memory();
                if places.iter().all(|place| reads(place.access())) {
                    continue;
                }
                if let Place::In(id, _) = self.image.place(to.target)
                    && self.image.entity(id).kind == EntityKind::Object
                {
                    found.insert(id);
                }
            }
        }
        found
    }

    /// True if the code of `function` refers to `variable`.
    pub(super) fn uses(&self, function: EntityId, variable: EntityId) -> bool {
        let uses = self.usage.uses.get(&variable).into_iter().flatten();
        let mut by = uses.map(|user| self.main_of(user.by));
        by.any(|by| by == function)
    }
}
