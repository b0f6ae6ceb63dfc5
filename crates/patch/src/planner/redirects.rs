//! Which functions of the base lead to the patch, and what must be there before they do.

use std::collections::HashSet;

use invivo_compare::Rule;
use invivo_image::{EntityId, Image, LinkAddr};
use sha2::{Digest as _, Sha256};

use super::{Placed, Planner};
use crate::Entry;
use crate::agreement::Agreements;
use crate::model::{Check, Direction, Hex, Redirect};

impl Planner<'_, '_> {
    pub(super) fn redirects(&mut self) -> Vec<Redirect> {
        let c = self.c;
        let hot: HashSet<EntityId> = c.hot.iter().flat_map(|f| f.base.ids()).collect();
        let mut redirects = Vec::new();
        let whole = (&|id| c.base_parts(id), &|id| c.fixed_parts(id));
        let mut agreements = Agreements::new(c, (&whole.0, &whole.1));
        for function in &c.hot {
            let entity = c.base.entity(function.base.main);
            let rva = |id| place_of(c.base, id);
            let Some(entry) = Entry::of(c.base, &c.base_usage, &function.base) else {
                self.refuse(
                    Rule::Binding,
                    function.fixed.main,
                    "its code in the base is not all instructions",
                );
                continue;
            };
            let entered = self.is_entered(function.base.main, &hot);
            let old_callers = agreements.has_old_callers(function);
            let is_unmet = entered
                && (old_callers && !agreements.is_met(function)
                    || agreements.moves_duties(function));
            if is_unmet || agreements.is_spoiled(function.base.main, None) {
                self.apart.push(entity.name().to_owned());
            }
            redirects.push(Redirect {
                direction: Direction::Forward,
                function: entity.name().to_owned(),
                at: rva(function.base.main).0,
                size: entity.size,
                hooked: entered || agreements.is_kept(function),
                entry,
                replacement: self.placed[&Placed::Copy(function.fixed.main)],
                cold: function.base.cold.iter().map(|part| rva(*part)).collect(),
            });
        }
        redirects
    }

    /// True if anything but the functions of the hot set can enter `function`.
    fn is_entered(&self, function: EntityId, hot: &HashSet<EntityId>) -> bool {
        let usage = &self.c.base_usage;
        let exported = self
            .c
            .base
            .entity(function)
            .names
            .iter()
            .any(|symbol| symbol.exported);
        let called = usage
            .uses
            .get(&function)
            .is_some_and(|uses| uses.iter().any(|u| !hot.contains(&u.by)));
        // A function that no code refers to is reached in a way that was not seen.
        let unseen = !usage.uses.contains_key(&function) && !usage.pointed.contains_key(&function);
        exported || called || unseen || usage.address_is_taken(function)
    }
}

/// Bytes that must be there: all code that is replaced, and padding that hooks may use.
pub(crate) fn checks(
    base: &Image,
    parts: impl Iterator<Item = EntityId>,
    redirects: &[Redirect],
) -> Vec<Check> {
    let code = parts.map(|id| (base.entity(id).addr, base.entity(id).size));
    let hooked = redirects.iter().filter(|redirect| redirect.hooked);
    let padding = hooked.flat_map(|redirect| {
        let entry = LinkAddr(base.base.0 + redirect.at.0);
        let near = redirect.entry.pads.iter();
        near.filter_map(move |(at, size)| Some((entry.checked_offset(*at)?, u64::from(*size))))
    });
    let mut ranges: Vec<(LinkAddr, u64)> = code.chain(padding).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
        .into_iter()
        .filter_map(|(at, size)| {
            let sha256 = Hex(Sha256::digest(base.bytes(at, size)?).to_vec());
            Some(Check {
                at: base.rva(at)?,
                size,
                sha256,
            })
        })
        .collect()
}

/// Where an entity is, relative to its image.
fn place_of(image: &Image, id: EntityId) -> (invivo_image::Rva, u64) {
    let entity = image.entity(id);
    (
        image
            .rva(entity.addr)
            .expect("entities lie in sections, sections behind the base"),
        entity.size,
    )
}
