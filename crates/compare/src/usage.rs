//! Who refers to what in one image: computed once, used by matching, by the
//! bounds of constants, and by the choice of hooks.

use std::collections::{BTreeSet, HashMap};

use invivo_image::x86_64::{Reference, ReferenceKind, decode};
use invivo_image::{EntityId, EntityKind, Image, Link, LinkAddr, Place, SectionKind, Slot};
use rayon::prelude::*;

use crate::constants::through_tables;

/// One function's reference to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Usage {
    /// Collects the references of `image`.
    #[must_use]
    pub fn of(image: &Image) -> Usage {
        let functions: Vec<_> = image
            .entity_ids()
            .filter(|(_, entity)| entity.kind != EntityKind::Object && entity.size > 0)
            .collect();
        let found: Vec<(EntityId, Option<Vec<Reference>>)> = functions
            .par_iter()
            .map(|(id, entity)| {
                let references = decode(image, entity).map(|lines| {
                    let tabled = through_tables(image, &lines).into_iter();
                    let tabled = tabled.filter(|at| *at < entity.addr || *at >= entity.end());
                    let outer = lines.iter().flat_map(|line| line.references());
                    // A function that takes its own address tells it to somebody.
                    let leaves = |r: &Reference| {
                        r.target < entity.addr
                            || r.target >= entity.end()
                            || (r.kind == ReferenceKind::Relative && r.target == entity.addr)
                    };
                    let told = tabled.map(|target| Reference {
                        kind: ReferenceKind::Relative,
                        offset: 0,
                        width: 0,
                        target,
                    });
                    outer.filter(leaves).chain(told).collect()
                });
                (*id, references)
            })
            .collect();
        let mut usage = Usage::default();
        let mut boundaries = BTreeSet::new();
        for (by, references) in found {
            let Some(references) = references else {
                usage.undecoded.insert(by);
                continue;
            };
            for reference in references {
                boundaries.insert(reference.target);
                if let Place::In(id, offset) = image.place(reference.target) {
                    let branch = offset == 0
                        && matches!(reference.kind, ReferenceKind::Call | ReferenceKind::Jump);
                    let uses = usage.uses.entry(id).or_default();
                    if uses.last() != Some(&Use { by, branch }) {
                        uses.push(Use { by, branch });
                    }
                }
            }
        }
        for (place, target) in pointers(image) {
            boundaries.insert(target);
            if let Place::In(id, _) = image.place(target) {
                usage.pointed.entry(id).or_default().push(place);
            }
        }
        boundaries.extend(image.entities.iter().map(|entity| entity.addr));
        usage.boundaries = boundaries.into_iter().collect();
        usage
    }

    /// The first address behind `at` that anything refers to.
    #[must_use]
    pub fn next_boundary(&self, at: LinkAddr) -> Option<LinkAddr> {
        let after = self.boundaries.partition_point(|boundary| *boundary <= at);
        self.boundaries.get(after).copied()
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

/// Every pointer in data: from relocations, and in images with fixed addresses
/// every word that could be one.
fn pointers(image: &Image) -> Vec<(LinkAddr, LinkAddr)> {
    let mut defined: HashMap<&str, LinkAddr> = HashMap::new();
    for entity in &image.entities {
        for symbol in &entity.names {
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
            if section.kind == SectionKind::Text {
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
