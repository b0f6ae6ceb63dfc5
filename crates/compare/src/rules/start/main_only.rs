//! Functions to which only `main` leads, by calls that nothing repeats: they set something up, or clean up.

use std::collections::{BTreeSet, HashMap};

use invivo_image::{EntityId, Image, LinkAddr, Place, demangle};

use crate::Comparison;
use crate::rules::body::Body;

/// How many calls may lie between `main` and a function.
const DEEPEST: usize = 16;

/// What is known of the ways from `main`.
pub(super) struct FromMain<'c, 'a> {
    c: &'c Comparison<'a>,
    /// Functions by their cold parts.
    wholes: HashMap<EntityId, EntityId>,
    known: HashMap<EntityId, bool>,
    bodies: HashMap<EntityId, Option<Body<'a>>>,
}

impl<'c, 'a> FromMain<'c, 'a> {
    pub(super) fn of(c: &'c Comparison<'a>) -> Self {
        FromMain {
            c,
            wholes: c.base_cold.wholes().collect(),
            known: HashMap::new(),
            bodies: HashMap::new(),
        }
    }

    /// True if only `main` leads to `id`, and only where nothing is repeated.
    pub(super) fn leads_once(&mut self, id: EntityId) -> bool {
        !is_main(self.c.base, id) && self.leads(id, &mut Vec::new())
    }

    fn leads(&mut self, id: EntityId, path: &mut Vec<EntityId>) -> bool {
        if is_main(self.c.base, id) {
            return true;
        }
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        let entity = self.c.base.entity(id);
        let is_known_elsewhere = self.c.base_usage.pointed.contains_key(&id)
            || entity.names.iter().any(|symbol| symbol.exported);
        if is_known_elsewhere || path.contains(&id) || path.len() == DEEPEST {
            return false;
        }
        path.push(id);
        let leads = self.callers(id).is_some_and(|callers| {
            let mut callers = callers.into_iter();
            callers.all(|by| !self.repeats(by, id) && self.leads(by, path))
        });
        path.pop();
        self.known.insert(id, leads);
        leads
    }

    /// The functions that call one; none if nobody does, or if one does something else with it.
    fn callers(&self, id: EntityId) -> Option<BTreeSet<EntityId>> {
        let whole = |by| *self.wholes.get(&by).unwrap_or(&by);
        let uses = self.c.base_usage.uses.get(&id)?.iter();
        // A cold part jumps back into the middle of its function, which is no way in.
        let mut uses = uses
            .filter(|one| one.by == id || whole(one.by) != id)
            .peekable();
        uses.peek()?;
        uses.map(|one| one.branch.then(|| whole(one.by))).collect()
    }

    /// True if a function may call another one more than once in a run of its own.
    fn repeats(&mut self, by: EntityId, callee: EntityId) -> bool {
        let c = self.c;
        let body = self
            .bodies
            .entry(by)
            .or_insert_with(|| Body::of(c.base, &c.base_cold.parts(by)));
        let calls = |at: LinkAddr| matches!(c.base.place(at), Place::In(id, 0) if id == callee);
        body.as_ref().is_none_or(|body| body.repeats(calls))
    }
}

fn is_main(image: &Image, id: EntityId) -> bool {
    let name = image.entity(id).name();
    name == "main" || demangle(name).ends_with("::main")
}
