//! R-REMOVED, continued: one function with several names, of which the other image makes several.
//!
//! Callers in the image are replaced with the call. Who has the address, and other images that found it
//! by one of the names, go on with the one function of the base, which can lead to only one of the two.

use std::collections::{HashMap, HashSet};

use invivo_image::{EntityId, EntityKind, Image, Symbol, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule, removed};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    // Of object files every name is one that other files may use, and these are linked anew.
    if c.base.is_of_objects() {
        return;
    }
    let shared: HashSet<&str> = shared_names(c.base).chain(shared_names(c.fixed)).collect();
    if shared.is_empty() {
        return;
    }
    let meaning = Meaning::new(c);
    let (base, fixed) = (bearers(c.base, &shared), bearers(c.fixed, &shared));
    let hot: HashSet<EntityId> = c.hot.iter().map(|hot| hot.base.main).collect();
    let mut names: Vec<&str> = shared.into_iter().collect();
    names.sort_unstable();
    for name in names {
        let (Some([(one, symbol)]), Some([(other, _)])) = (
            base.get(name).map(Vec::as_slice),
            fixed.get(name).map(Vec::as_slice),
        ) else {
            continue;
        };
        let pair = c.pairs.fixed_of(*one);
        let is_hot = hot.contains(one);
        if pair == Some(*other) || !is_hot && meaning.same_body(*one, *other) {
            continue;
        }
        let keeper = if symbol.exported {
            Some("other images may have its address by this name".to_owned())
        } else if is_hot {
            Some("frames that are inside its old callers go on calling it".to_owned())
        } else {
            removed::keeper(c, *one, false)
        };
        let Some(keeper) = keeper else { continue };
        let own = |image: &Image, id| demangle(image.entity(id).name());
        let how = match pair {
            Some(pair) => format!(
                "is a name of the function {} in the running image, and in the fixed one of {}, not \
                 of {}",
                own(c.base, *one),
                own(c.fixed, *other),
                own(c.fixed, pair)
            ),
            None => format!(
                "is a function of its own in the running image, and in the fixed one a name of {}",
                own(c.fixed, *other)
            ),
        };
        findings.push(Finding::refuse(
            Rule::Removed,
            demangle(name),
            format!(
                "{how}, and {keeper}: it can still be called as it was; keep the functions apart, or \
                 together, as they were"
            ),
        ));
    }
}

/// Names of functions that have more than one.
fn shared_names(image: &Image) -> impl Iterator<Item = &str> {
    let functions = image.entities.iter().filter(|entity| {
        entity.kind == EntityKind::Function && entity.size > 0 && entity.names.len() > 1
    });
    let names = functions.flat_map(|entity| &entity.names);
    names
        .filter(|symbol| symbol.size > 0)
        .map(|symbol| &*symbol.name)
}

/// Who has these names.
fn bearers<'i>(
    image: &'i Image,
    names: &HashSet<&str>,
) -> HashMap<&'i str, Vec<(EntityId, &'i Symbol)>> {
    let mut found: HashMap<&str, Vec<(EntityId, &Symbol)>> = HashMap::new();
    for (id, entity) in image.entity_ids() {
        if entity.kind != EntityKind::Function || entity.size == 0 {
            continue;
        }
        for symbol in entity
            .names
            .iter()
            .filter(|symbol| names.contains(&*symbol.name))
        {
            let of_name = found.entry(&symbol.name).or_default();
            // An exported symbol may stand in both tables.
            match of_name.iter_mut().find(|(known, _)| *known == id) {
                Some(known) if symbol.exported => known.1 = symbol,
                Some(_) => {}
                None => of_name.push((id, symbol)),
            }
        }
    }
    found
}
