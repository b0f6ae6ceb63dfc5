//! The hot set: functions to replace, each with its reasons.

use foldhash::{HashMap, HashMapExt};
use invivo_image::{DebugData, EntityId, EntityKind, Image, SourceFunction, demangle, whole_of};
use rayon::prelude::*;

use crate::meaning::Meaning;
use crate::{
    Comparison, Difference, Differing, Reason, ReasonKind, clones, conventions, line_numbers,
    reasons,
};

/// A function together with the parts that the compiler moved away from it
/// because they seldom run (`name.cold`; with BOLT also `name.warm`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The function itself.
    pub main: EntityId,
    /// Its cold parts.
    pub cold: Vec<EntityId>,
}

impl Parts {
    /// Every function of an image with its cold parts, in order of address.
    #[must_use]
    pub fn all(image: &Image) -> Vec<Parts> {
        let cold = ColdParts::of(image);
        let functions = image.entity_ids().filter(|(id, entity)| {
            entity.kind == EntityKind::Function && entity.size > 0 && !cold.wholes.contains_key(id)
        });
        functions.map(|(id, _)| cold.parts(id)).collect()
    }

    /// All parts, the function first.
    pub fn ids(&self) -> impl Iterator<Item = EntityId> {
        std::iter::once(self.main).chain(self.cold.iter().copied())
    }
}

/// A function that has to be replaced.
#[derive(Clone, Debug)]
pub struct Hot {
    /// It, in the base.
    pub base: Parts,
    /// It, in the fixed image.
    pub fixed: Parts,
    /// Its name, for a person.
    pub name: String,
    /// What the base's debug data say of it.
    pub base_source: Option<SourceFunction>,
    /// What the fixed image's debug data say of it.
    pub fixed_source: Option<SourceFunction>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// It does with its data what it did: the same instructions, which refer to something else.
    pub(crate) same_instructions: bool,
}

impl Hot {
    /// True if both images tell the types of its parameters and variables.
    #[must_use]
    pub fn is_typed(&self) -> bool {
        let sources = [&self.base_source, &self.fixed_source];
        sources.map(|source| source.as_ref().is_some_and(|s| s.typed)) == [true; 2]
    }

    /// How it is called in the base and in the fixed image, for a person, if that differs; `None`
    /// also if it is not known ([`Hot::is_typed`]).
    #[must_use]
    pub fn prototypes(&self) -> Option<(&str, &str)> {
        let known = |source: &&SourceFunction| source.typed;
        let before = self.base_source.as_ref().filter(known)?;
        let after = self.fixed_source.as_ref().filter(known)?;
        (before.prototype != after.prototype).then_some((
            before.prototype_text.as_str(),
            after.prototype_text.as_str(),
        ))
    }
}

/// What differs between the functions of two images.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Functions to replace.
    pub(crate) hot: Vec<Hot>,
    /// Functions in which nothing but line numbers differs.
    pub(crate) left_out: Vec<Hot>,
    pub(crate) added: Vec<EntityId>,
    pub(crate) removed: Vec<EntityId>,
}

/// A pair of functions that differ, and how.
pub(crate) struct Pair {
    base: Parts,
    fixed: Parts,
    differences: Vec<Differing>,
}

/// The functions of an image that are no cold parts of others, in order.
fn functions(image: &Image, cold: &ColdParts) -> impl Iterator<Item = EntityId> {
    let all = image.entity_ids().map(|(id, _)| id);
    all.filter(|id| is_function(image, cold, *id))
}

fn is_function(image: &Image, cold: &ColdParts, id: EntityId) -> bool {
    let entity = image.entity(id);
    entity.kind == EntityKind::Function && entity.size > 0 && !cold.wholes.contains_key(&id)
}

/// The pairs of functions that differ.
pub(crate) fn differing(c: &Comparison<'_>) -> Vec<Pair> {
    let pairs: Vec<(EntityId, EntityId)> = functions(c.base, &c.base_cold)
        .filter_map(|base| c.pairs.fixed_of(base).map(|fixed| (base, fixed)))
        .filter(|(_, fixed)| is_function(c.fixed, &c.fixed_cold, *fixed))
        .collect();
    let compare = |meaning: &mut Meaning<'_, '_>, (base, fixed): &(EntityId, EntityId)| {
        let base = c.base_cold.parts(*base);
        let fixed = c.fixed_cold.parts(*fixed);
        if meaning.same_outlines(&base, &fixed) {
            return None;
        }
        let differences = meaning.differences(&base, &fixed);
        (!differences.is_empty()).then_some(Pair {
            base,
            fixed,
            differences,
        })
    };
    let pairs = pairs.par_iter().map_init(|| Meaning::new(c), compare);
    pairs.flatten().collect()
}

/// Functions that differ, that appeared and that vanished. Those in which only line numbers
/// differ are left out of the hot set unless `keep_line_changes` says otherwise.
pub(crate) fn find(
    c: &Comparison<'_>,
    differing: Vec<Pair>,
    base_debug: Option<&DebugData<'_>>,
    fixed_debug: Option<&DebugData<'_>>,
    keep_line_changes: bool,
) -> Found {
    let differ: Vec<Hot> = differing
        .into_par_iter()
        .map(|pair| {
            let (base, fixed) = (pair.base.main, pair.fixed.main);
            let differences = pair.differences;
            let parts = (pair.base, pair.fixed);
            let source = |debug: Option<&DebugData<'_>>, image: &Image, id| {
                let at = image.entity(id).addr;
                let told = debug.and_then(|debug| debug.function(at));
                told.or_else(|| image.pdb_function(at))
            };
            let mut base_source = source(base_debug, c.base, base);
            let mut fixed_source = source(fixed_debug, c.fixed, fixed);
            if let (Some(before), Some(after)) = (&mut base_source, &mut fixed_source) {
                conventions::tell(c, (base, before), (fixed, after));
            }
            let sides = base_debug
                .zip(base_source.as_ref())
                .zip(fixed_debug.zip(fixed_source.as_ref()));
            let same_instructions = differences.iter().all(Differing::keeps_instructions);
            let doubtful = |differs: &Differing| matches!(differs.what, Difference::Doubt { .. });
            let reasons = match sides {
                _ if differences.iter().all(doubtful) => Reason::of(&differences),
                Some((one, other)) if line_numbers::are_all(&differences, one, other) => {
                    vec![Reason::lines(&differences)]
                }
                Some((one, other)) => reasons::of(c, &parts, one, other, &differences),
                None => Reason::of(&differences),
            };
            Hot {
                name: demangle(c.base.entity(base).name()),
                base: parts.0,
                fixed: parts.1,
                base_source,
                fixed_source,
                reasons,
                same_instructions,
            }
        })
        .collect();
    let only_lines = |hot: &Hot| hot.reasons.iter().all(|r| r.kind == ReasonKind::Lines);
    let (left_out, hot) = differ
        .into_iter()
        .partition(|hot| !keep_line_changes && only_lines(hot));
    let (in_base, in_fixed) = (
        functions(c.base, &c.base_cold),
        functions(c.fixed, &c.fixed_cold),
    );
    let mut found = Found {
        hot,
        left_out,
        added: in_fixed
            .filter(|id| c.pairs.base_of(*id).is_none())
            .collect(),
        removed: in_base
            .filter(|id| c.pairs.fixed_of(*id).is_none())
            .collect(),
    };
    reasons::add_signatures(c, &mut found.hot);
    clones::add(c, &mut found);
    found
}

/// The cold parts of an image.
#[derive(Debug)]
pub(crate) struct ColdParts {
    /// By the function that has some.
    by_function: HashMap<EntityId, Vec<EntityId>>,
    /// The function of each.
    wholes: HashMap<EntityId, EntityId>,
}

impl ColdParts {
    pub(crate) fn of(image: &Image) -> Self {
        let mut by_name: HashMap<&str, Vec<EntityId>> = HashMap::new();
        for (id, entity) in image.entity_ids() {
            if entity.kind != EntityKind::Function {
                continue;
            }
            for symbol in &entity.names {
                if let Some(function) = whole_of(&symbol.name) {
                    let parts = by_name.entry(function).or_default();
                    if parts.last() != Some(&id) {
                        parts.push(id);
                    }
                }
            }
        }
        // Few have any, and to look for a name costs more than for a number.
        let mut by_function = HashMap::new();
        let mut wholes = HashMap::new();
        for (id, entity) in image.entity_ids().filter(|_| !by_name.is_empty()) {
            // A constructor is `C1` and `C2` at once, and its part is called after one of them.
            let mut parts: Vec<EntityId> = Vec::new();
            for symbol in &entity.names {
                let named = by_name.get(&*symbol.name).into_iter().flatten();
                // A global function's cold part is local to the file that has the function, and
                // the symbol of a global function does not say which file that is. A local one's
                // is in its own file: the only part of that name may be that of another file's.
                parts.extend(named.filter(|part| {
                    let file = &symbol.file;
                    file.is_none() || image.entity(**part).symbol().file == *file
                }));
            }
            parts.sort_unstable();
            parts.dedup();
            if !parts.is_empty() {
                // One that is nobody's is compared as a function.
                wholes.extend(parts.iter().map(|part| (*part, id)));
                by_function.insert(id, parts);
            }
        }
        ColdParts {
            by_function,
            wholes,
        }
    }

    /// The function of a cold part; of everything else itself.
    pub(crate) fn whole(&self, id: EntityId) -> EntityId {
        self.wholes.get(&id).copied().unwrap_or(id)
    }

    pub(crate) fn parts(&self, main: EntityId) -> Parts {
        let cold = self.by_function.get(&main).cloned().unwrap_or_default();
        Parts { main, cold }
    }
}
