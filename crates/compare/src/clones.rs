//! Clones: copies of a function for single callers (`f.constprop.0`), copies that are called in
//! another way (`f.isra.0`) and parts that were taken out of one (`f.part.0`).
//!
//! Compilers decide anew in each build which of them there are, so a fix in one place makes
//! some come and go in others. Then neither the function nor its callers show a change of
//! their own source, and that a clone came is why they differ.

use std::collections::{BTreeSet, HashMap};

use invivo_image::{EntityId, EntityKind, Image, clone_sorts, demangle, whole_of};

use crate::hot::Found;
use crate::{Comparison, Parts, Reason, ReasonKind, Usage};

/// Adds to the functions that differ which clones came and went: of themselves, and of the
/// functions that they call.
pub(crate) fn add(c: &Comparison<'_>, found: &mut Found) {
    let is_clone = |image: &Image, id: &EntityId| {
        let entity = image.entity(*id);
        entity.kind == EntityKind::Function
            && whole_of(entity.name()).is_none()
            && !clone_sorts(entity.name()).is_empty()
    };
    // A pair in which the sort of clone is another: both are clones, or one of them is.
    let changed = |(base, fixed): &(EntityId, EntityId)| {
        (is_clone(c.base, base) || is_clone(c.fixed, fixed))
            && clone_sorts(c.base.entity(*base).name())
                != clone_sorts(c.fixed.entity(*fixed).name())
    };
    let pairs: Vec<(EntityId, EntityId)> = c.pairs.iter().filter(changed).collect();
    let came = found.added.iter().copied();
    let came = came.chain(pairs.iter().map(|(_, fixed)| *fixed));
    let came: Vec<EntityId> = came.filter(|id| is_clone(c.fixed, id)).collect();
    let gone = found.removed.iter().copied();
    let gone = gone.chain(pairs.iter().map(|(base, _)| *base));
    let gone: Vec<EntityId> = gone.filter(|id| is_clone(c.base, id)).collect();
    if came.is_empty() && gone.is_empty() {
        return;
    }
    let (calls, called) = (
        callers(&c.fixed_usage, &came),
        callers(&c.base_usage, &gone),
    );
    let became: HashMap<EntityId, EntityId> = pairs.into_iter().collect();
    for hot in &mut found.hot {
        let mut new = Vec::new();
        let mut say = |text| {
            new.push(Reason {
                kind: ReasonKind::Clone,
                text,
            });
        };
        if became.contains_key(&hot.base.main) {
            let [before, after] = [(c.base, &hot.base), (c.fixed, &hot.fixed)]
                .map(|(image, parts)| demangle(image.entity(parts.main).name()));
            say(
                match (
                    is_clone(c.base, &hot.base.main),
                    is_clone(c.fixed, &hot.fixed.main),
                ) {
                    (false, _) => {
                        format!("the compiler made a clone of it: {before} became {after}")
                    }
                    (_, false) => {
                        format!("the compiler made no clone of it: {before} became {after}")
                    }
                    _ => format!("the compiler made another clone of it: {before} became {after}"),
                },
            );
        }
        for clone in of(&calls, &hot.fixed) {
            let name = demangle(c.fixed.entity(clone).name());
            say(format!("calls {name}, a clone that appeared"));
        }
        for clone in of(&called, &hot.base) {
            let name = demangle(c.base.entity(clone).name());
            say(format!("called {name}, a clone that disappeared"));
        }
        // Other registers and another order are what another way to call comes to.
        if !new.is_empty() {
            let other = |reason: &Reason| reason.kind != ReasonKind::Compiler;
            hot.reasons.retain(other);
        }
        new.append(&mut hot.reasons);
        new.sort_by_key(|reason| reason.kind);
        hot.reasons = new;
    }
}

/// Which of `clones` each function refers to.
fn callers(usage: &Usage, clones: &[EntityId]) -> HashMap<EntityId, BTreeSet<EntityId>> {
    let mut found: HashMap<EntityId, BTreeSet<EntityId>> = HashMap::new();
    for clone in clones {
        for by in usage.uses.get(clone).into_iter().flatten() {
            found.entry(by.by).or_default().insert(*clone);
        }
    }
    found
}

/// Those that a function refers to, less itself.
fn of(callers: &HashMap<EntityId, BTreeSet<EntityId>>, parts: &Parts) -> BTreeSet<EntityId> {
    let called = parts.ids().filter_map(|part| callers.get(&part)).flatten();
    called.copied().filter(|id| *id != parts.main).collect()
}
