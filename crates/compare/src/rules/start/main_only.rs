//! Functions to which only `main` leads, by calls that nothing repeats: they set something up, or clean up.

use std::collections::HashMap;

use invivo_image::{EntityId, Image, LinkAddr, Place, demangle};

use super::callers::Callers;
use crate::Comparison;

/// How many calls may lie between `main` and a function.
const DEEPEST: usize = 16;

/// What is known of the ways from `main`.
pub(super) struct FromMain<'c, 'a> {
    c: &'c Comparison<'a>,
    known: HashMap<EntityId, bool>,
}

impl<'c, 'a> FromMain<'c, 'a> {
    pub(super) fn of(c: &'c Comparison<'a>) -> Self {
        FromMain {
            c,
            known: HashMap::new(),
        }
    }

    /// True if only `main` leads to `id`, and only where nothing is repeated.
    pub(super) fn leads_once(&mut self, callers: &mut Callers<'_, '_>, id: EntityId) -> bool {
        !is_main(self.c.base, id) && self.leads(callers, id, &mut Vec::new())
    }

    fn leads(
        &mut self,
        callers: &mut Callers<'_, '_>,
        id: EntityId,
        path: &mut Vec<EntityId>,
    ) -> bool {
        if is_main(self.c.base, id) {
            return true;
        }
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        if path.contains(&id) || path.len() == DEEPEST {
            return false;
        }
        path.push(id);
        let leads = callers.only(id).is_some_and(|all| {
            let mut all = all.into_iter();
            all.all(|by| !self.repeats(callers, by, id) && self.leads(callers, by, path))
        });
        path.pop();
        self.known.insert(id, leads);
        leads
    }

    /// True if a function may call another one more than once in a run of its own.
    fn repeats(&self, callers: &mut Callers<'_, '_>, by: EntityId, callee: EntityId) -> bool {
        let c = self.c;
        let calls = |at: LinkAddr| matches!(c.base.place(at), Place::In(id, 0) if id == callee);
        callers.body(by).is_none_or(|body| body.repeats(calls))
    }
}

fn is_main(image: &Image, id: EntityId) -> bool {
    let name = image.entity(id).name();
    name == "main" || demangle(name).ends_with("::main")
}
