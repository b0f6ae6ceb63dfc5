//! What the debug data say of the functions that differ.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::pe::PdbFacts;
use invivo_image::x86_64::{Line, decode};
use invivo_image::{
    DebugData, DebugSections, EntityId, EntityKind, Enumerators, Image, LinkAddr, Place, Slot,
    SourceFunction, TraitTable, UnitFacts, UsedType, UsedTypes, VariableType, is_rust,
};

use crate::hot::Found;
use crate::{Comparison, Hot, Usage, rules};

/// One image's.
#[derive(Debug)]
pub struct Source {
    /// Types that functions of the hot set, and those that they were inlined with, get at.
    pub types: UsedTypes,
    /// Other types that the source files of these functions know: a cast may get at them.
    pub beside: UsedTypes,
    /// Variables that new code refers to and both images have.
    pub variables: BTreeMap<EntityId, VariableType>,
    /// Numbers with a name that the source files of these functions know.
    pub enumerators: Enumerators,
    /// Tables of the methods of traits that these functions refer to; they have no symbols.
    pub trait_tables: Vec<TraitTable>,
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

/// The variables that new code refers to, in the base and in the fixed image. Those whose size
/// is another one are R-SIZE's.
pub(crate) fn variables(c: &Comparison<'_>, found: &Found) -> Vec<(EntityId, EntityId)> {
    let image = c.fixed;
    let hot = found.hot.iter().flat_map(|hot| hot.fixed.ids());
    let mut referred: BTreeSet<LinkAddr> = BTreeSet::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for id in hot.chain(found.added.iter().copied()) {
        let lines = decode(image, image.entity(id));
        for reference in lines.iter().flatten().flat_map(Line::references) {
            match image.slots.get(&reference.target) {
                Some(Slot::Pointer(target)) => referred.insert(*target),
                // Of a library: the loader may take another image's.
                Some(Slot::Import(name, _)) => names.insert(name),
                _ => referred.insert(reference.target),
            };
        }
    }
    let at = referred.into_iter().filter_map(|at| match image.place(at) {
        Place::In(id, _) => Some(id),
        _ => None,
    });
    let mut all: BTreeSet<EntityId> = at.collect();
    if !names.is_empty() {
        let objects = image.entity_ids().filter(|(_, entity)| {
            let mut symbols = entity.names.iter();
            entity.kind == EntityKind::Object && symbols.any(|s| names.contains(s.name.as_ref()))
        });
        all.extend(objects.map(|(id, _)| id));
    }
    let pairs = all.into_iter().filter_map(|fixed| {
        let base = c.pairs.base_of(fixed)?;
        let same_size = c.base.entity(base).size == image.entity(fixed).size;
        let live = rules::is_variable(c.base, base) && rules::is_variable(image, fixed);
        (same_size && live).then_some((base, fixed))
    });
    pairs.collect()
}

/// Constants without symbols that functions of Rust refer to.
fn unnamed_constants(image: &Image, functions: &Functions<'_>) -> BTreeSet<LinkAddr> {
    let rust = functions.iter().map(|(id, _)| image.entity(*id));
    let rust = rust.filter(|entity| is_rust(entity.name()));
    let lines = rust.flat_map(|entity| decode(image, entity).unwrap_or_default());
    let places = lines.flat_map(|line| line.references().collect::<Vec<_>>());
    let constants = places.filter_map(|reference| match image.place(reference.target) {
        Place::Constant(at) => Some(at),
        _ => None,
    });
    constants.collect()
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
            variables: BTreeMap::new(),
            enumerators: Enumerators::new(),
            trait_tables: Vec::new(),
            compiled: facts.compilers.iter().map(unit).collect(),
        }
    }

    pub(crate) fn of(
        image: &Image,
        usage: &Usage,
        debug: &DebugData<'_>,
        functions: &Functions<'_>,
        variables: &[EntityId],
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
        let all: Vec<&SourceFunction> = functions.iter().map(|(_, function)| *function).collect();
        let places = variables.iter().map(|id| image.entity(*id).addr);
        let mut typed = debug.variables_typed(&all, &places.collect());
        let of = |id: &EntityId| Some((*id, typed.remove(&image.entity(*id).addr)?));
        let variables: BTreeMap<EntityId, VariableType> = variables.iter().filter_map(of).collect();
        let types = debug.types_used(&asked, variables.values());
        let mut beside = debug.types_beside(&all);
        beside.retain(|name, _| !types.contains_key(name));
        Source {
            types,
            beside,
            variables,
            enumerators: debug.enumerators(&all),
            trait_tables: debug.trait_tables(&all, &unnamed_constants(image, functions)),
            compiled,
        }
    }
}
