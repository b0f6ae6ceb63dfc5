//! R-CONST for sections that code walks through from `__start_x` to `__stop_x`.
//!
//! No instruction names what stands between: an element that changed, or that only one of the
//! images has, makes no function differ. New code reads copies of single objects, and never a
//! whole section.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::{EntityId, EntityKind, Image, Section, SectionKind, demangle};

use crate::Comparison;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    if c.base.is_windows() || c.base.is_of_objects() {
        return;
    }
    let (before, after) = (bounded(c.base), bounded(c.fixed));
    let meaning = Meaning::new(c);
    for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (one, other) = (before.get(name), after.get(name));
        if let Some(subject) = differing(c, &meaning, one.copied(), other.copied()) {
            let text = format!(
                "is an element of the section {name}, which code walks through as a whole, and is \
                 another in the fixed image"
            );
            findings.push(Finding::refuse(Rule::Constant, subject, text));
        }
    }
}

/// Sections of which the linker tells where they begin or end.
fn bounded(image: &Image) -> BTreeMap<&str, &Section> {
    let marks = image.entities.iter().flat_map(|entity| &entity.names);
    let marks = marks.map(|symbol| &*symbol.name);
    let edges = image.edges.values().flatten().map(|name| &**name);
    let bounds = marks.chain(edges).filter_map(|name| {
        name.strip_prefix("__start_")
            .or_else(|| name.strip_prefix("__stop_"))
    });
    let bounds: BTreeSet<&str> = bounds.collect();
    let walked = image.sections.iter().filter(|section| {
        matches!(section.kind, SectionKind::ReadOnly | SectionKind::Data)
            && bounds.contains(&*section.name)
    });
    walked.map(|section| (&*section.name, section)).collect()
}

/// What differs between the two, by its name.
fn differing(
    c: &Comparison<'_>,
    meaning: &Meaning<'_, '_>,
    before: Option<&Section>,
    after: Option<&Section>,
) -> Option<String> {
    let (Some(before), Some(after)) = (before, after) else {
        // A section that is new is copied as far as new code names it, and no further.
        return before.or(after).map(|section| section.name.clone());
    };
    let size = |section: &Section| section.range.end.0 - section.range.start.0;
    let (one, other) = (before.range.start, after.range.start);
    // The first value of what is written is R-INIT's matter.
    let is_written = before.kind == SectionKind::Data && after.kind == SectionKind::Data;
    if size(before) == size(after) && (is_written || meaning.same_data(one, other, size(before))) {
        return None;
    }
    let same = |base: EntityId, fixed: EntityId| {
        let records = c.moved_records.contains_key(&base);
        is_written || records || meaning.same_object(base, fixed)
    };
    let elements = (objects(c.base, before), objects(c.fixed, after));
    let name = |image: &Image, id: EntityId| demangle(image.entity(id).name());
    for base in &elements.0 {
        match c.pairs.fixed_of(*base) {
            Some(fixed) if elements.1.contains(&fixed) && same(*base, fixed) => {}
            _ => return Some(name(c.base, *base)),
        }
    }
    let added = elements.1.iter().find(|id| c.pairs.base_of(**id).is_none());
    let nameless = || (elements.0.is_empty() || elements.1.is_empty()).then(|| before.name.clone());
    added.map(|id| name(c.fixed, *id)).or_else(nameless)
}

/// What lies in a section and has a size.
fn objects(image: &Image, section: &Section) -> BTreeSet<EntityId> {
    let within = image.entity_ids().filter(|(_, entity)| {
        entity.kind == EntityKind::Object && entity.size > 0 && section.range.contains(&entity.addr)
    });
    within.map(|(id, _)| id).collect()
}
