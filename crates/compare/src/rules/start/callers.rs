//! Who calls functions of the base, and how: each caller is read once.

use std::collections::{BTreeSet, HashMap};

use invivo_image::EntityId;

use crate::Comparison;
use crate::rules::body::Body;

/// The callers that were asked about.
pub(super) struct Callers<'c, 'a> {
    c: &'c Comparison<'a>,
    bodies: HashMap<EntityId, Option<Body<'a>>>,
}

impl<'c, 'a> Callers<'c, 'a> {
    pub(super) fn of(c: &'c Comparison<'a>) -> Self {
        Callers {
            c,
            bodies: HashMap::new(),
        }
    }

    /// The functions that alone lead to one, by calls; none if nobody does, if one does something else with it,
    /// or if it is known elsewhere.
    pub(super) fn only(&self, id: EntityId) -> Option<BTreeSet<EntityId>> {
        let (usage, cold) = (&self.c.base_usage, &self.c.base_cold);
        let mut names = self.c.base.entity(id).names.iter();
        if usage.pointed.contains_key(&id) || names.any(|symbol| symbol.exported) {
            return None;
        }
        // A cold part jumps back into the middle of its function, which is no way in.
        let uses = usage.uses.get(&id)?.iter();
        let mut uses = uses
            .filter(|one| one.by == id || cold.whole(one.by) != id)
            .peekable();
        uses.peek()?;
        uses.map(|one| one.branch.then(|| cold.whole(one.by)))
            .collect()
    }

    /// The instructions of one.
    pub(super) fn body(&mut self, id: EntityId) -> Option<&Body<'a>> {
        let c = self.c;
        let body = self.bodies.entry(id);
        body.or_insert_with(|| Body::of(c.base, &c.base_cold.parts(id)))
            .as_ref()
    }
}
