//! Which registers a function changes.

use invivo_compare::Parts;
use invivo_image::x86_64::{ReferenceKind, decode};
use invivo_image::{EntityId, Place};

use iced_x86::{FlowControl, InstructionInfoFactory};

use super::registers::{ALL, Registers, touched};
use super::side::{Bound, DEEPEST, Side};

impl Side<'_> {
    /// What `function` changes, its callees included.
    pub(super) fn clobbers(&mut self, function: EntityId, bound: Bound) -> Registers {
        self.clobbered(function, bound, DEEPEST)
    }

    fn clobbered(&mut self, function: EntityId, bound: Bound, depth: u32) -> Registers {
        let known = |side: &Self| side.clobbers[bound as usize].get(&function).copied();
        if let Some(found) = known(self) {
            return found;
        }
        let unknown = if bound == Bound::Upper { ALL } else { 0 };
        if depth == 0 {
            return unknown;
        }
        // So that recursion ends.
        self.clobbers[bound as usize].insert(function, unknown);
        let found = self.clobbered_by(&self.parts(function), bound, unknown, depth);
        self.clobbers[bound as usize].insert(function, found);
        found
    }

    fn clobbered_by(
        &mut self,
        parts: &Parts,
        bound: Bound,
        unknown: Registers,
        depth: u32,
    ) -> Registers {
        let image = self.image;
        let mut factory = InstructionInfoFactory::new();
        let mut found = 0;
        for part in parts.ids() {
            let entity = image.entity(part);
            let Some(lines) = decode(image, entity) else {
                return unknown;
            };
            for line in &lines {
                found |= touched(&mut factory, &line.instruction).changed;
                let leaves = line.address.filter(|r| {
                    let branch = matches!(r.kind, ReferenceKind::Call | ReferenceKind::Jump);
                    branch && (r.target < entity.addr || r.target >= entity.end())
                });
                match (line.instruction.flow_control(), leaves) {
                    (_, Some(reference)) => {
                        found |= match image.place(reference.target) {
                            Place::In(id, _) if parts.ids().any(|part| part == id) => 0,
                            Place::In(id, 0) => self.clobbered(id, bound, depth - 1),
                            Place::In(..) => unknown,
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
}
