//! The hot set: functions to replace, each with its reasons.

use std::collections::BTreeSet;

use invivo_image::{EntityId, EntityKind, Image, demangle};
use rayon::prelude::*;

use crate::meaning::Meaning;
use crate::{Comparison, Reason};

/// A function together with the parts that the compiler moved away from it
/// because they seldom run (`name.cold`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The function itself.
    pub main: EntityId,
    /// Its cold parts.
    pub cold: Vec<EntityId>,
}

impl Parts {
    /// The function with its cold parts.
    #[must_use]
    pub fn of(image: &Image, main: EntityId) -> Parts {
        let entity = image.entity(main);
        let wanted = format!("{}.cold", entity.name());
        let file = entity.symbol().file.clone();
        let is_cold = |name: &str| {
            name.strip_prefix(&wanted).is_some_and(|rest| {
                rest.is_empty()
                    || rest
                        .strip_prefix('.')
                        .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
            })
        };
        let candidates = image
            .entity_ids()
            .filter(|(_, other)| other.kind == EntityKind::Function)
            .filter(|(_, other)| other.names.iter().any(|symbol| is_cold(&symbol.name)));
        // A global function's cold part is local to the file that has the function,
        // and the symbol of a global function does not say which file that is: there
        // is one file with such a part, or the part must be in the function's own file.
        let mut cold: Vec<EntityId> = candidates.map(|(id, _)| id).collect();
        if cold.len() > 1 && file.is_some() {
            cold.retain(|id| image.entity(*id).symbol().file == file);
        }
        Parts { main, cold }
    }

    /// Every function of an image with its cold parts, in order of address.
    #[must_use]
    pub fn all(image: &Image) -> Vec<Parts> {
        let cold = ColdParts::of(image);
        let functions = image.entity_ids().filter(|(_, entity)| {
            entity.kind == EntityKind::Function && entity.size > 0 && !is_cold_part(entity.name())
        });
        functions.map(|(id, _)| cold.parts(image, id)).collect()
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
    /// Why.
    pub reasons: Vec<Reason>,
}

/// True for `name.cold`: part of another function.
fn is_cold_part(name: &str) -> bool {
    name.rsplit_once(".cold").is_some_and(|(_, rest)| {
        rest.is_empty()
            || rest
                .strip_prefix('.')
                .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Hot functions, added functions, removed functions.
pub(crate) fn find(c: &Comparison<'_>) -> (Vec<Hot>, Vec<EntityId>, Vec<EntityId>) {
    let functions = |image: &Image| -> BTreeSet<EntityId> {
        image
            .entity_ids()
            .filter(|(_, e)| {
                e.kind == EntityKind::Function && e.size > 0 && !is_cold_part(e.name())
            })
            .map(|(id, _)| id)
            .collect()
    };
    let cold = ColdParts::of(c.base);
    let fixed_cold = ColdParts::of(c.fixed);
    let (in_base, in_fixed) = (functions(c.base), functions(c.fixed));
    let pairs: Vec<(EntityId, EntityId)> = in_base
        .iter()
        .filter_map(|base| c.pairs.fixed_of(*base).map(|fixed| (*base, fixed)))
        .filter(|(_, fixed)| in_fixed.contains(fixed))
        .collect();
    let hot = pairs
        .par_iter()
        .map_init(
            || Meaning::new(c),
            |meaning, (base, fixed)| {
                let parts = (cold.parts(c.base, *base), fixed_cold.parts(c.fixed, *fixed));
                let differences = meaning.differences(&parts.0, &parts.1);
                (!differences.is_empty()).then(|| Hot {
                    name: demangle(c.base.entity(*base).name()),
                    base: parts.0,
                    fixed: parts.1,
                    reasons: Reason::of(&differences),
                })
            },
        )
        .flatten()
        .collect();
    let added = in_fixed
        .iter()
        .filter(|id| c.pairs.base_of(**id).is_none())
        .copied()
        .collect();
    let removed = in_base
        .iter()
        .filter(|id| c.pairs.fixed_of(**id).is_none())
        .copied()
        .collect();
    (hot, added, removed)
}

/// Names of functions that have a cold part: most have none, and looking
/// through all symbols for each function would cost their square.
struct ColdParts(BTreeSet<String>);

impl ColdParts {
    fn of(image: &Image) -> Self {
        let names = image.entities.iter().flat_map(|entity| &entity.names);
        let cold = names.filter_map(|symbol| symbol.name.rsplit_once(".cold"));
        ColdParts(cold.map(|(head, _)| head.to_owned()).collect())
    }

    fn parts(&self, image: &Image, main: EntityId) -> Parts {
        if self.0.contains(image.entity(main).name()) {
            Parts::of(image, main)
        } else {
            Parts {
                main,
                cold: Vec::new(),
            }
        }
    }
}
