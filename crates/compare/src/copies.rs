//! What a compiler makes several copies of, and calls as it likes.
//!
//! Rust's compiler cuts a crate into units and puts a copy of a generic function or of a
//! constant into each that needs it. Another cut makes other copies: their names end in
//! other hashes, and there may be more of them or fewer. Which copy a caller refers to says
//! nothing, as long as all of them do the same; taking the only copy that is left for the
//! counterpart because its name fits is the tempting wrong way, since a copy may also be of
//! another type whose name is the same.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use invivo_image::{EntityId, EntityKind, Image, Slot, is_rust, source_name};

use crate::meaning::Meaning;
use crate::{Comparison, Pairs};

impl Meaning<'_, '_> {
    /// True if two functions are copies of one: they have the same name but for hashes, and
    /// do the same. Rust promises nothing of the addresses of functions, so nobody can tell.
    pub(crate) fn same_copy(&self, base: EntityId, fixed: EntityId) -> bool {
        let c = self.comparison();
        if !may_be_copies(c, base, fixed) || !self.same_body(base, fixed) {
            return false;
        }
        // Whoever goes on calling the base's copy gets to what replaces it.
        let replaced = c.pairs.fixed_of(base);
        replaced.is_none_or(|own| own == fixed || self.same_body(base, own))
    }

    /// True if two functions do the same.
    pub(crate) fn same_body(&self, base: EntityId, fixed: EntityId) -> bool {
        self.assuming(base, fixed, || {
            let c = self.comparison();
            let (one, other) = (c.base_cold.parts(base), c.fixed_cold.parts(fixed));
            self.differences(&one, &other).is_empty()
        })
    }
}

fn may_be_copies(c: &Comparison<'_>, base: EntityId, fixed: EntityId) -> bool {
    let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
    one.kind == EntityKind::Function
        && other.kind == EntityKind::Function
        && one.size > 0
        && other.size > 0
        && is_rust(one.name())
        && is_rust(other.name())
        && source_name(one.name()) == source_name(other.name())
}

/// True for a constant whose name a compiler made of a hash of its unit and a number.
#[must_use]
pub fn is_anonymous(name: &str) -> bool {
    let rest = name.strip_prefix("anon.").unwrap_or_default();
    let hash = rest.split('.').next().unwrap_or_default();
    hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What is alike from outside: the only entities that are worth comparing.
type Key = (EntityKind, u64, u64);

/// Pairs what is left of functions and constants that compilers copy: those that mean the
/// same can stand for each other.
pub(crate) fn pairs(c: &Comparison<'_>) -> Vec<(EntityId, EntityId)> {
    let meaning = Meaning::new(c);
    let left = left(c.base, |id| c.pairs.fixed_of(id).is_none());
    let mut right = left_by_key(c.fixed, |id| c.pairs.base_of(id).is_none());
    let mut found = Vec::new();
    for (key, base) in left {
        let others = right.entry(key).or_default();
        let same = others.iter().position(|fixed| match key.0 {
            EntityKind::Object => meaning.same_object(base, *fixed),
            _ => meaning.same_copy(base, *fixed),
        });
        if let Some(at) = same {
            found.push((base, others.remove(at)));
        }
    }
    found
}

fn left_by_key(image: &Image, free: impl Fn(EntityId) -> bool) -> HashMap<Key, Vec<EntityId>> {
    let mut found: HashMap<Key, Vec<EntityId>> = HashMap::new();
    for (key, id) in left(image, free) {
        found.entry(key).or_default().push(id);
    }
    found
}

fn left(image: &Image, free: impl Fn(EntityId) -> bool) -> Vec<(Key, EntityId)> {
    let candidates = image.entity_ids().filter(|(id, _)| free(*id));
    candidates
        .filter_map(|(id, entity)| {
            let mut hash = DefaultHasher::new();
            match entity.kind {
                EntityKind::Object if is_anonymous(entity.name()) && entity.size > 0 => {
                    contents(image, id).hash(&mut hash);
                }
                EntityKind::Function if is_rust(entity.name()) => {
                    source_name(entity.name()).hash(&mut hash);
                }
                _ => return None,
            }
            Some(((entity.kind, entity.size, hash.finish()), id))
        })
        .collect()
}

/// The bytes of an object without those that the loader writes, and where it writes them.
fn contents(image: &Image, id: EntityId) -> Option<(Vec<u8>, Vec<u64>)> {
    let entity = image.entity(id);
    let mut bytes = image.bytes(entity.addr, entity.size)?.to_vec();
    let slots = image.slots.range(entity.addr..entity.end());
    let pointers = slots.filter(|(_, slot)| matches!(slot, Slot::Pointer(_)));
    let places: Vec<u64> = pointers.map(|(at, _)| at.0 - entity.addr.0).collect();
    let pointer = usize::try_from(image.pointer_size()).ok()?;
    for at in &places {
        let rest = usize::try_from(*at).ok().and_then(|at| bytes.get_mut(at..));
        rest?.iter_mut().take(pointer).for_each(|byte| *byte = 0);
    }
    Some((bytes, places))
}

impl Pairs {
    /// Adds what [`pairs`] found.
    pub(crate) fn add(&mut self, found: Vec<(EntityId, EntityId)>) {
        for (base, fixed) in found {
            self.insert(base, fixed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_anonymous;

    #[test]
    fn only_a_hash_and_a_number_make_a_constant_anonymous() {
        assert!(is_anonymous("anon.286c82e0dabece782c640d615901f46d.14"));
        assert!(is_anonymous(
            "anon.286c82e0dabece782c640d615901f46d.14.llvm.6402435553809938854"
        ));
        assert!(!is_anonymous("anon.table.14"));
        assert!(!is_anonymous("anonymous"));
    }
}
