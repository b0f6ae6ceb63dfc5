//! Who refers to what in one image: computed once, used by matching, by the
//! bounds of constants, and by the choice of hooks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use iced_x86::Code;
use invivo_image::x86_64::{Line, Reference, ReferenceKind, decode_all};
use invivo_image::{Entity, EntityId, EntityKind, Image, Link, LinkAddr, Place, SectionKind, Slot};
use rayon::prelude::*;

use crate::constants::through_tables;
use crate::originals::{self, Unowned};
use crate::outline::Outline;

/// One function's reference to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// The function that refers.
    pub by: EntityId,
    /// True for a call or jump to its first byte; false where its address is taken or data is read.
    pub branch: bool,
}

/// All references of one image.
#[derive(Debug, Default)]
pub struct Usage {
    /// References from code, by the entity referred to.
    pub uses: HashMap<EntityId, Vec<Use>>,
    /// Entities whose address is in data, with the places that hold it.
    pub pointed: HashMap<EntityId, Vec<LinkAddr>>,
    /// Functions that could not be decoded as a whole.
    pub undecoded: BTreeSet<EntityId>,
    /// Every address that anything refers to, in order: an unnamed constant
    /// ends where the next one begins.
    pub boundaries: Vec<LinkAddr>,
    /// Functions that run into what follows them.
    pub(crate) runs_on: BTreeSet<EntityId>,
    /// Code without a symbol that nothing leads to, in order.
    pub(crate) dead: Vec<Range<LinkAddr>>,
    /// By the number of the function; none for those that are not that simple.
    pub(crate) outlines: Vec<Option<Outline>>,
}

impl Usage {
    /// Collects the references of `image`.
    #[must_use]
    pub fn of(image: &Image) -> Usage {
        let functions: Vec<_> = image
            .entity_ids()
            .filter(|(_, entity)| entity.kind != EntityKind::Object && entity.size > 0)
            .collect();
        let mut found = functions
            .into_par_iter()
            .fold(Found::default, |mut found, (id, entity)| {
                found.add_code(image, id, entity);
                found
            })
            .reduce(Found::default, Found::join);
        // Before more is added: the same places are referred to all the time.
        found.sort();
        found.add_data(image);
        found.sort();
        let mut usage = Usage {
            undecoded: found.undecoded,
            runs_on: found.runs_on,
            dead: found.dead,
            boundaries: found.boundaries,
            ..Usage::default()
        };
        usage.outlines.resize_with(image.entities.len(), || None);
        for (id, outline) in found.outlines {
            usage.outlines[id.0 as usize] = Some(outline);
        }
        for uses in found.uses.chunk_by(|a, b| a.0 == b.0) {
            let list = uses.iter().map(|(_, by)| *by).collect();
            usage.uses.insert(uses[0].0, list);
        }
        for pointers in found.pointed.chunk_by(|a, b| a.0 == b.0) {
            let places = pointers.iter().map(|(_, place)| *place).collect();
            usage.pointed.insert(pointers[0].0, places);
        }
        usage
    }

    /// The first address behind `at` that anything refers to.
    #[must_use]
    pub fn next_boundary(&self, at: LinkAddr) -> Option<LinkAddr> {
        let after = self.boundaries.partition_point(|boundary| *boundary <= at);
        self.boundaries.get(after).copied()
    }

    /// True for code without a symbol that nothing leads to.
    pub(crate) fn is_dead(&self, piece: &Range<LinkAddr>) -> bool {
        let found = self
            .dead
            .binary_search_by_key(&piece.start, |dead| dead.start);
        found.is_ok()
    }

    /// True if the address of `id` is known to anything but direct calls:
    /// whoever has it may call it at any time.
    #[must_use]
    pub fn address_is_taken(&self, id: EntityId) -> bool {
        self.pointed.contains_key(&id)
            || self
                .uses
                .get(&id)
                .is_some_and(|uses| uses.iter().any(|u| !u.branch))
    }
}

/// What one thread found: lists, because a large image has millions of references, and one
/// sort at the end costs far less than a look into a map for each of them.
#[derive(Default)]
struct Found {
    uses: Vec<(EntityId, Use)>,
    pointed: Vec<(EntityId, LinkAddr)>,
    undecoded: BTreeSet<EntityId>,
    boundaries: Vec<LinkAddr>,
    runs_on: BTreeSet<EntityId>,
    dead: Vec<Range<LinkAddr>>,
    outlines: Vec<(EntityId, Outline)>,
}

impl Found {
    fn add_code(&mut self, image: &Image, by: EntityId, entity: &Entity) {
        let bytes = image.bytes(entity.addr, entity.size).unwrap_or_default();
        let lines = decode_all(image, entity.addr, bytes);
        let is_code = |line: &Line| line.instruction.code() != Code::DeclareByte;
        let whole = lines.last().is_some_and(|last| last.end() == entity.end());
        if !whole || !lines.iter().all(is_code) {
            self.undecoded.insert(by);
        }
        // A call at the end of a function does not return.
        let last = lines.iter().rfind(|line| !line.is_padding());
        if !last.is_some_and(|last| last.ends_flow() || last.is_call()) {
            self.runs_on.insert(by);
        }
        let tabled = through_tables(image, &lines).into_iter();
        let tabled = tabled.map(|target| Reference {
            kind: ReferenceKind::Relative,
            offset: 0,
            width: 0,
            target,
        });
        let outside = tabled.filter(|r| !(entity.addr..entity.end()).contains(&r.target));
        let mut targets = Vec::new();
        for reference in lines.iter().flat_map(Line::references).chain(outside) {
            // A function that takes its own address tells it to somebody.
            let told = reference.kind == ReferenceKind::Relative && reference.target == entity.addr;
            if (entity.addr..entity.end()).contains(&reference.target) && !told {
                continue;
            }
            let calls = matches!(reference.kind, ReferenceKind::Call | ReferenceKind::Jump);
            targets.push((reference.target, calls));
        }
        targets.sort_unstable();
        targets.dedup();
        for (target, calls) in targets {
            self.boundaries.push(target);
            if let Place::In(id, offset) = image.place(target) {
                let branch = offset == 0 && calls;
                self.uses.push((id, Use { by, branch }));
            }
        }
        let outline = Outline::of(image, entity, &lines);
        self.outlines.extend(outline.map(|outline| (by, outline)));
    }

    fn add_data(&mut self, image: &Image) {
        for (place, target) in pointers(image) {
            self.boundaries.push(target);
            if let Place::In(id, _) = image.place(target) {
                self.pointed.push((id, place));
            }
        }
        // Whom code without a symbol calls is called by somebody who cannot be replaced. The
        // variables that it seems to refer to are mostly marks of the linker at their place.
        self.sort();
        let unowned = Unowned::of(image, &self.boundaries, &self.runs_on);
        self.dead = unowned.dead;
        self.boundaries
            .extend(originals::constants(image, &self.dead));
        for (place, target) in unowned.references {
            self.boundaries.push(target);
            if let Place::In(id, _) = image.place(target)
                && image.entity(id).kind != EntityKind::Object
            {
                self.pointed.push((id, place));
            }
        }
        let entities = image.entities.iter().map(|entity| entity.addr);
        self.boundaries.extend(entities);
    }

    fn join(mut self, mut other: Found) -> Found {
        self.uses.append(&mut other.uses);
        self.undecoded.append(&mut other.undecoded);
        self.runs_on.append(&mut other.runs_on);
        self.boundaries.append(&mut other.boundaries);
        self.outlines.append(&mut other.outlines);
        self
    }

    fn sort(&mut self) {
        self.uses.par_sort_unstable();
        self.uses.dedup();
        // In images with fixed addresses a relocated word is found twice.
        self.pointed.par_sort_unstable();
        self.pointed.dedup();
        self.boundaries.par_sort_unstable();
        self.boundaries.dedup();
        self.boundaries.shrink_to_fit();
        self.uses.shrink_to_fit();
    }
}

/// How often code and data of `image` refer to each of `places`.
#[must_use]
pub fn references_to(
    image: &Image,
    usage: &Usage,
    places: &BTreeSet<LinkAddr>,
) -> BTreeMap<LinkAddr, usize> {
    let functions: Vec<&Entity> = image
        .entities
        .iter()
        .filter(|entity| entity.kind != EntityKind::Object && entity.size > 0)
        .collect();
    let in_code = functions.par_iter().flat_map_iter(|entity| {
        let bytes = image.bytes(entity.addr, entity.size).unwrap_or_default();
        let lines = decode_all(image, entity.addr, bytes);
        let found = lines.iter().flat_map(Line::references);
        let found = found.map(|reference| reference.target);
        let found: Vec<LinkAddr> = found.filter(|target| places.contains(target)).collect();
        found
    });
    let mut found: Vec<LinkAddr> = in_code.collect();
    let mut words = pointers(image);
    // In images with fixed addresses a relocated word is found twice.
    words.sort_unstable();
    words.dedup();
    let others = words
        .into_iter()
        .chain(originals::references(image, &usage.dead));
    found.extend(others.map(|(_, target)| target));
    let mut counts = BTreeMap::new();
    for target in found.into_iter().filter(|target| places.contains(target)) {
        *counts.entry(target).or_default() += 1;
    }
    counts
}

/// Every pointer in data: from relocations, and in images with fixed addresses
/// every word that could be one.
fn pointers(image: &Image) -> Vec<(LinkAddr, LinkAddr)> {
    let imported = image.slots.values().filter_map(|slot| match slot {
        Slot::Import(name, 0) | Slot::LazyImport(name) => Some(name.as_ref()),
        _ => None,
    });
    let imported: HashSet<&str> = imported.collect();
    let mut defined: HashMap<&str, LinkAddr> = HashMap::new();
    for entity in &image.entities {
        for symbol in entity.names.iter().filter(|s| imported.contains(&*s.name)) {
            defined.entry(&symbol.name).or_insert(entity.addr);
        }
    }
    let mut found: Vec<(LinkAddr, LinkAddr)> = image
        .slots
        .iter()
        .filter_map(|(place, slot)| match slot {
            Slot::Pointer(target) | Slot::Resolved(target) => Some((*place, *target)),
            Slot::Import(name, 0) | Slot::LazyImport(name) => {
                defined.get(name.as_ref()).map(|target| (*place, *target))
            }
            _ => None,
        })
        .collect();
    if image.link == Link::Fixed {
        for section in &image.sections {
            if section.kind == SectionKind::Text || section.belongs_to_loader() {
                continue;
            }
            for (index, word) in image.section_bytes(section).chunks_exact(8).enumerate() {
                let value = word
                    .iter()
                    .rev()
                    .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                let place = LinkAddr(section.range.start.0 + index as u64 * 8);
                if image.section_at(LinkAddr(value)).is_some() {
                    found.push((place, LinkAddr(value)));
                }
            }
        }
    }
    found
}
