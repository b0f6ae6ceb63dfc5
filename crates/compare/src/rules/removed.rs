//! R-REMOVED: what the fixed image no longer has stays in the process.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use invivo_image::{
    EntityId, EntityKind, Image, LinkAddr, SectionKind, Spoken, demangle, source_name, stem,
    whole_of,
};
use rayon::prelude::*;

use crate::meaning::Meaning;
use crate::rules::{Finding, Rule, given, is_variable};
use crate::{Comparison, Usage};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    functions(c, findings);
    let names: HashSet<&str> = unpaired_variables(c.fixed, |id| c.pairs.base_of(id).is_none())
        .map(|id| stem(c.fixed.entity(id).name()))
        .collect();
    let copied = super::copied(c.base);
    let renamed = renamed(c);
    for id in unpaired_variables(c.base, |id| c.pairs.fixed_of(id).is_none()) {
        let name = c.base.entity(id).name();
        // One that may be its successor makes it ambiguous, which the planner judges.
        if names.contains(stem(name)) || copied.contains(name) {
            continue;
        }
        if let Some(new) = renamed.get(&id) {
            let new = demangle(c.fixed.entity(*new).name());
            let text = format!(
                "is a variable that the fixed image no longer has, and {new} is new, as large, and used by \
                 the same functions: if it is the same under another name, all that it holds is lost; \
                 leave it its name, or give the new one another size"
            );
            findings.push(Finding::refuse(Rule::Removed, demangle(name), text));
            continue;
        }
        findings.push(Finding::note(
            Rule::Removed,
            demangle(name),
            "is a variable that the fixed image no longer has; what it holds stays, and new code does not look at \
             it",
        ));
    }
}

fn functions(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let gone = c.removed.iter().map(|id| c.base.entity(*id));
    let gone: HashSet<String> = gone.map(|entity| source_name(entity.name())).collect();
    let spoken = Spoken::new(gone.iter().map(String::as_str));
    // A name of which only one bearer is gone cannot be told from one that was renumbered.
    let names = c.fixed.entities.par_iter().flat_map_iter(|e| &e.names);
    let names = names.filter(|symbol| !gone.is_empty() && spoken.may_have(&symbol.name));
    let names = names.map(|symbol| source_name(&symbol.name));
    let kept: HashSet<String> = names.filter(|name| gone.contains(name)).collect();
    for id in &c.removed {
        let entity = c.base.entity(*id);
        let name = demangle(entity.name());
        let unrecognised = c.pairs.unrecognised.contains(id);
        let keeper = keeper(c, *id, unrecognised);
        // Lambdas are called alike but for a number that each build gives anew.
        let unrecognised = unrecognised && keeper.is_some();
        let is_name_kept = kept.contains(&source_name(entity.name()));
        if !unrecognised && is_name_kept && (keeper.is_none() || is_done_by_another(c, *id)) {
            continue;
        }
        findings.push(match keeper {
            Some(keeper) if is_name_kept && !unrecognised => Finding::refuse(
                Rule::Removed,
                name,
                format!(
                    "is a function of which nothing but the name is known in the fixed image, where \
                     it may be that of another one, and {keeper}: it can still be called as it was; \
                     a name of its own would tell what became of it"
                ),
            ),
            Some(keeper) if unrecognised => Finding::refuse(
                Rule::Removed,
                name,
                format!(
                    "is one of several functions that only a number in their names tells apart, \
                     none of the fixed image's is known to be what became of it, and {keeper}: it \
                     can still be called as it was"
                ),
            ),
            Some(keeper) => Finding::refuse(
                Rule::Removed,
                name,
                format!(
                    "is a function that the fixed image no longer has, and {keeper}: it can still \
                     be called as it was"
                ),
            ),
            None => Finding::note(
                Rule::Removed,
                name,
                "is a function that the fixed image no longer has; nothing calls it once the \
                 patch is live",
            ),
        });
    }
}

/// True if a function of the same name does in the fixed image what this one does: nothing was
/// mended in it.
fn is_done_by_another(c: &Comparison<'_>, function: EntityId) -> bool {
    let meaning = Meaning::new(c);
    let name = source_name(c.base.entity(function).name());
    let size = c.base.entity(function).size;
    let mut alike = c.fixed.entity_ids().filter(|(_, entity)| {
        entity.kind == EntityKind::Function
            && entity.size == size
            && entity
                .names
                .iter()
                .any(|symbol| source_name(&symbol.name) == name)
    });
    alike.any(|(id, _)| meaning.same_body(function, id))
}

/// Who may have the address of a removed function; `by_constants`: a table that is never written, too.
pub(super) fn keeper(c: &Comparison<'_>, function: EntityId, by_constants: bool) -> Option<String> {
    let is_live = |at: &&LinkAddr| {
        let section = c.base.section_at(**at);
        section.is_some_and(|s| {
            let kept =
                s.kind == SectionKind::Data || by_constants && s.kind == SectionKind::ReadOnly;
            kept && !is_list(&s.name)
        })
    };
    let mut places = c.base_usage.pointed.get(&function).into_iter().flatten();
    if let Some(at) = places.find(is_live) {
        let holder = c.base.entity_at(*at);
        let holder = holder.map_or_else(|| at.to_string(), |id| demangle(c.base.entity(id).name()));
        let kind = c.base.section_at(*at).map(|section| section.kind);
        return Some(match kind {
            Some(SectionKind::Data) => format!("the live variable {holder} holds its address"),
            _ => format!("the table at {holder}, which live data may point to, holds its address"),
        });
    }
    // A table that is never written, which data in the heap may point to.
    let places = c.base_usage.pointed.get(&function).into_iter().flatten();
    let tables = places.filter_map(|at| c.base.entity_at(*at).filter(|id| is_table(c.base, *id)));
    for table in tables {
        if let Some(holder) = given::holder(c, table) {
            let table = demangle(c.base.entity(table).name());
            return Some(format!("{table} holds its address, and {holder}"));
        }
    }
    let own = Some(c.base.entity(function).name());
    let uses = c.base_usage.uses.get(&function).into_iter().flatten();
    let mut takers = uses.filter(|u| !u.branch && whole_of(c.base.entity(u.by).name()) != own);
    let taker = takers.next()?;
    let by = demangle(c.base.entity(taker.by).name());
    Some(format!("{by} has given its address away"))
}

/// True for a constant other than tables of virtual functions, which have a rule of their own.
fn is_table(image: &Image, id: EntityId) -> bool {
    let entity = image.entity(id);
    let name = entity.name();
    let is_class = ["_ZTV", "_ZTT", "_ZTC", "_ZTI", "??_7"]
        .iter()
        .any(|kind| name.starts_with(kind));
    entity.size > 0 && !is_class && image.is_constant_at(entity.addr)
}

/// Lists that are read when the image is loaded or unloaded, not live data.
fn is_list(section: &str) -> bool {
    ["init_array", "fini_array", "ctors", "dtors"]
        .iter()
        .any(|list| section.contains(list))
}

fn unpaired_variables(
    image: &Image,
    is_unpaired: impl Fn(EntityId) -> bool,
) -> impl Iterator<Item = EntityId> {
    let ids = image.entity_ids().map(|(id, _)| id);
    ids.filter(move |id| is_variable(image, *id) && is_unpaired(*id))
}

/// Old variables that may have another name in the fixed image: there is a new one that is as large and that the
/// same functions use.
fn renamed(c: &Comparison<'_>) -> BTreeMap<EntityId, EntityId> {
    let users = |usage: &Usage, id, base: &dyn Fn(EntityId) -> Option<EntityId>| {
        let all = usage.uses.get(&id).into_iter().flatten();
        let all: BTreeSet<EntityId> = all.map(|one| base(one.by)).collect::<Option<_>>()?;
        (!all.is_empty()).then_some(all)
    };
    let is_meant = |image: &Image, id| {
        let name = image.entity(id).name();
        !name.starts_with("_ZGV") && !name.starts_with("DW.ref.")
    };
    let mut new = BTreeMap::new();
    for id in unpaired_variables(c.fixed, |id| c.pairs.base_of(id).is_none()) {
        let base = |by| c.pairs.base_of(c.fixed_cold.whole(by));
        let users = users(&c.fixed_usage, id, &base).filter(|_| is_meant(c.fixed, id));
        new.extend(users.map(|users| ((c.fixed.entity(id).size, users), id)));
    }
    let mut found = BTreeMap::new();
    for id in unpaired_variables(c.base, |id| c.pairs.fixed_of(id).is_none()) {
        let base = |by| Some(c.base_cold.whole(by));
        let users = users(&c.base_usage, id, &base).filter(|_| is_meant(c.base, id));
        let size = c.base.entity(id).size;
        let successor = users.and_then(|users| new.get(&(size, users)));
        found.extend(successor.map(|new| (id, *new)));
    }
    found
}
