//! Places inside functions whose addresses are taken: `&&label` of GNU C, for `goto *`.
//!
//! Such a place is one of the version of the function that gave it: another version has another
//! frame there, even where the distance from its entry is the same.

use std::collections::BTreeSet;

use iced_x86::Mnemonic;
use invivo_image::x86_64::{Line, ReferenceKind, decode, jumps_through};
use invivo_image::{EntityId, EntityKind, Image, Link, LinkAddr, Place, Slot};

use crate::{Parts, Usage, jump_table};

mod strays;

use strays::strays;

/// Constants that lead to each other are followed this deep.
const DEEPEST: u32 = 4;

/// The functions that an object holds places inside of; one that is led to counts, too.
#[must_use]
pub fn labelled(image: &Image, object: EntityId) -> BTreeSet<EntityId> {
    let mut found = BTreeSet::new();
    collect(image, object, DEEPEST, &mut found);
    found
}

fn collect(image: &Image, object: EntityId, depth: u32, found: &mut BTreeSet<EntityId>) {
    let entity = image.entity(object);
    for (_, target) in pointers(image, entity.addr, entity.size) {
        let Place::In(id, offset) = image.place(target) else {
            continue;
        };
        let inner = image.entity(id);
        if is_label(image, target) {
            found.insert(id);
        } else if depth > 0
            && offset < inner.size
            && inner.kind == EntityKind::Object
            && image.is_constant_at(inner.addr)
            && id != object
        {
            collect(image, id, depth - 1, found);
        }
    }
}

/// True for a place inside a function that is not where it begins.
fn is_label(image: &Image, at: LinkAddr) -> bool {
    let Place::In(id, offset) = image.place(at) else {
        return false;
    };
    let entity = image.entity(id);
    let part = || invivo_image::whole_of(entity.name()).is_some();
    if entity.kind == EntityKind::Object || !(offset > 0 && offset < entity.size || part()) {
        return false;
    }
    // A word may be a number where nothing says that it is an address.
    image.link != Link::Fixed
        || decode(image, entity)
            .is_some_and(|lines| lines.binary_search_by_key(&at, Line::at).is_ok())
}

/// Addresses that an object holds, with their places.
fn pointers(image: &Image, at: LinkAddr, size: u64) -> Vec<(LinkAddr, LinkAddr)> {
    let Some(end) = at.checked_add(size) else {
        return Vec::new();
    };
    let slots = image.slots.range(at..end);
    let mut found: Vec<_> = slots
        .filter_map(|(place, slot)| match slot {
            Slot::Pointer(to) => Some((*place, *to)),
            _ => None,
        })
        .collect();
    if image.link == Link::Fixed {
        let bytes = image.bytes(at, size).unwrap_or_default();
        let words = bytes.chunks_exact(8).zip((at.0..).step_by(8));
        found.extend(words.filter_map(|(word, place)| {
            let to = LinkAddr(u64::from_le_bytes(word.try_into().ok()?));
            Some((LinkAddr(place), to))
        }));
    }
    found
}

/// How a function uses places inside itself.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// Its instructions take the address of one.
    pub(crate) taken: bool,
    /// It jumps to a place that does not come straight out of one of its tables.
    pub(crate) strays: bool,
    /// It jumps to a place that it reckons.
    pub(crate) jumps: bool,
    /// Constants with such places that it refers to.
    pub(crate) tables: BTreeSet<EntityId>,
}

impl Labels {
    /// `None` where its code is not understood.
    pub(crate) fn of(image: &Image, usage: &Usage, parts: &Parts) -> Option<Labels> {
        let pieces: Option<Vec<_>> = (parts.ids())
            .map(|id| decode(image, image.entity(id)))
            .collect();
        let mut lines = pieces?.concat();
        lines.sort_by_key(Line::at);
        let mut found = Labels {
            jumps: lines.iter().any(|line| jumps_through(&line.instruction)),
            ..Labels::default()
        };
        if !found.jumps {
            return Some(found);
        }
        let own = |at: LinkAddr| match image.place(at) {
            Place::In(id, _) => parts.ids().any(|part| part == id) && is_label(image, at),
            _ => false,
        };
        for line in &lines {
            for to in line.references() {
                let address = matches!(to.kind, ReferenceKind::Relative | ReferenceKind::Absolute);
                let loads = matches!(line.instruction.mnemonic(), Mnemonic::Lea | Mnemonic::Mov);
                found.taken |= address && loads && own(to.target);
                if let Some(table) = table(image, parts, to.target) {
                    found.tables.insert(table);
                }
            }
        }
        if !found.tables.is_empty() {
            let tabled = tabled(image, usage, &lines, &found.tables);
            found.strays = strays(image, &lines, &found.tables, &tabled);
        }
        Some(found)
    }
}

/// Where computed jumps of a function lead, by the place in `lines`.
fn tabled(
    image: &Image,
    usage: &Usage,
    lines: &[Line],
    tables: &BTreeSet<EntityId>,
) -> BTreeSet<usize> {
    let index = |at: LinkAddr| lines.binary_search_by_key(&at, Line::at).ok();
    let inside = |at| index(at).is_some();
    let mut found = BTreeSet::new();
    for at in 0..lines.len() {
        for to in lines[at].references() {
            let table = jump_table(image, usage, lines, at, to.target, &inside);
            let targets = table.into_iter().flatten().map(|entry| entry.target);
            found.extend(targets.filter_map(index));
        }
    }
    for table in tables {
        let entity = image.entity(*table);
        let targets = pointers(image, entity.addr, entity.size).into_iter();
        found.extend(targets.filter_map(|(_, to)| index(to)));
    }
    found
}

/// The named constant at `at` with places inside the function.
fn table(image: &Image, parts: &Parts, at: LinkAddr) -> Option<EntityId> {
    let at = match image.place(at) {
        Place::Slot(Slot::Pointer(to)) => to,
        _ => at,
    };
    let Place::In(id, _) = image.place(at) else {
        return None;
    };
    let entity = image.entity(id);
    let held = || labelled(image, id);
    (entity.kind == EntityKind::Object && parts.ids().any(|part| held().contains(&part)))
        .then_some(id)
}

/// Who but the function itself refers to one of its tables.
pub(crate) fn stranger(
    usage: &Usage,
    image: &Image,
    parts: &Parts,
    table: EntityId,
) -> Option<EntityId> {
    let uses = usage.uses.get(&table).into_iter().flatten();
    let mut others = uses.map(|user| user.by);
    let own = |id: &EntityId| parts.ids().any(|part| part == *id);
    let other = others.find(|by| !own(by));
    other.or_else(|| {
        let places = usage.pointed.get(&table).into_iter().flatten();
        places.filter_map(|at| image.entity_at(*at)).next()
    })
}
