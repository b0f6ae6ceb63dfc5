//! R-IFUNC: resolvers choose a function when the program is loaded, once for all.

use std::collections::HashSet;

use invivo_image::{Entity, EntityId, EntityKind, Image, LinkAddr, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule, start};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    let mut refuse = |name: &str, text: &str| {
        findings.push(Finding::refuse(Rule::Resolver, demangle(name), text));
    };
    for (id, resolver) in resolvers(c.base) {
        let Some(fixed) = c.pairs.fixed_of(id) else {
            if has_function(c.fixed, resolver) {
                refuse(
                    resolver.name(),
                    "is an ordinary function in the fixed image; in the running one a resolver \
                     has chosen already",
                );
            }
            continue;
        };
        let parts = (c.base_cold.parts(id), c.fixed_parts(fixed));
        if !meaning.differences(&parts.0, &parts.1).is_empty() {
            refuse(
                resolver.name(),
                "has another resolver in the fixed image; the running one has chosen already",
            );
        }
    }
    for (id, resolver) in resolvers(c.fixed) {
        if c.pairs.base_of(id).is_none() && has_function(c.base, resolver) {
            refuse(
                resolver.name(),
                "is chosen by a resolver in the fixed image, and an ordinary function in the \
                 running one",
            );
        }
    }
    // The code of a resolver often has a symbol of its own, at the same place.
    let places: HashSet<LinkAddr> = resolvers(c.base).map(|(_, e)| e.addr).collect();
    let at_place = c
        .base
        .entity_ids()
        .filter(|(_, e)| places.contains(&e.addr));
    let roots: HashSet<EntityId> = at_place.map(|(id, _)| id).collect();
    for hot in &c.hot {
        if !roots.contains(&hot.base.main) && start::is_reached_only(c, hot, &roots) {
            refuse(
                &hot.name,
                "is called by resolvers only, which have chosen already: its change comes too late",
            );
        }
    }
}

fn resolvers(image: &Image) -> impl Iterator<Item = (EntityId, &Entity)> {
    let is_resolver = |(_, entity): &(EntityId, &Entity)| entity.kind == EntityKind::Resolver;
    image.entity_ids().filter(is_resolver)
}

/// True if a function of the image bears one of the resolver's names.
fn has_function(image: &Image, resolver: &Entity) -> bool {
    let functions = image
        .entities
        .iter()
        .filter(|e| e.kind == EntityKind::Function);
    let mut names = functions.flat_map(|entity| &entity.names);
    names.any(|symbol| resolver.names.iter().any(|own| own.name == symbol.name))
}
