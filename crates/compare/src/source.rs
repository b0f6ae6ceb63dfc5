//! What the debug data say of the functions that differ.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::pe::PdbFacts;
use invivo_image::{
    DebugData, DebugSections, EntityId, EntityKind, Image, SourceFunction, UnitFacts, UsedType,
    UsedTypes,
};

use crate::{Hot, Usage};

/// One image's.
#[derive(Debug)]
pub struct Source {
    /// Types that functions of the hot set, and those that they were inlined with, get at.
    pub types: UsedTypes,
    /// Other types that the source files of these functions know: a cast may get at them.
    pub beside: UsedTypes,
    /// What compiled the functions of the hot set.
    pub compiled: Vec<UnitFacts>,
}

/// Opens the debug data of an image.
///
/// # Errors
/// A text that says why there are none.
pub(crate) fn sections(image: &Image) -> Result<DebugSections<'_>, String> {
    match DebugSections::of(image) {
        Ok(Some(sections)) => Ok(sections),
        Ok(None) => Err("has no debug data".to_owned()),
        Err(error) => Err(format!("has {error}")),
    }
}

/// Looks at the units of debug data.
///
/// # Errors
/// A text that says why there are none.
pub(crate) fn open<'s>(
    sections: &'s Result<DebugSections<'_>, String>,
) -> Result<DebugData<'s>, String> {
    let sections = sections.as_ref().map_err(Clone::clone)?;
    sections.open().map_err(|error| format!("has {error}"))
}

/// Functions of one image that have debug data.
pub(crate) fn functions_at(
    image: &Image,
    debug: &DebugData<'_>,
    ids: &[EntityId],
) -> Vec<(EntityId, SourceFunction)> {
    let found = ids.iter();
    found
        .filter_map(|id| Some((*id, debug.function(image.entity(*id).addr)?)))
        .collect()
}

/// Functions of which the types are wanted.
pub(crate) type Functions<'h> = Vec<(EntityId, &'h SourceFunction)>;

/// Functions of the hot set in the base, and in the fixed image.
pub(crate) fn functions(hot: &[Hot]) -> (Functions<'_>, Functions<'_>) {
    let base = hot
        .iter()
        .filter_map(|h| Some((h.base.main, h.base_source.as_ref()?)));
    let fixed = hot
        .iter()
        .filter_map(|h| Some((h.fixed.main, h.fixed_source.as_ref()?)));
    (base.collect(), fixed.collect())
}

impl Source {
    /// What is known of the type of this name.
    pub(crate) fn layouts(&self, name: &str) -> Option<&UsedType> {
        self.types.get(name).or_else(|| self.beside.get(name))
    }

    /// What a PDB file says: it does not tell who uses which type, so all of them count.
    pub(crate) fn of_pdb(facts: &PdbFacts) -> Source {
        let unit = |producer: &String| UnitFacts {
            producer: producer.clone(),
            ..UnitFacts::default()
        };
        Source {
            types: UsedTypes::clone(&facts.types),
            beside: UsedTypes::new(),
            compiled: facts.compilers.iter().map(unit).collect(),
        }
    }

    pub(crate) fn of(
        image: &Image,
        usage: &Usage,
        debug: &DebugData<'_>,
        functions: &Functions<'_>,
    ) -> Source {
        let mut names: BTreeMap<EntityId, BTreeSet<&str>> = BTreeMap::new();
        for (id, _) in functions {
            names.insert(*id, BTreeSet::new());
        }
        for (object, uses) in usage.uses.iter() {
            let entity = image.entity(object);
            if entity.kind != EntityKind::Object {
                continue;
            }
            for by in uses.iter().map(|u| u.by) {
                if let Some(names) = names.get_mut(&by) {
                    names.extend(entity.names.iter().map(|symbol| symbol.name.as_ref()));
                }
            }
        }
        let asked: Vec<_> = functions
            .iter()
            .map(|(id, function)| (*function, names.remove(id).unwrap_or_default()))
            .collect();
        let mut compiled: Vec<UnitFacts> = functions
            .iter()
            .filter_map(|(id, _)| debug.compiled_at(image.entity(*id).addr).cloned())
            .collect();
        compiled.sort();
        compiled.dedup();
        let types = debug.types_used(&asked);
        let all: Vec<&SourceFunction> = functions.iter().map(|(_, function)| *function).collect();
        let mut beside = debug.types_beside(&all);
        beside.retain(|name, _| !types.contains_key(name));
        Source {
            types,
            beside,
            compiled,
        }
    }
}
