//! Who refers to what in one image: computed once, used by matching, by the
//! bounds of constants, and by the choice of hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use foldhash::{HashMap, HashMapExt, HashSet};
use invivo_image::x86_64::walk;
use invivo_image::{
    AddressIndex, Entity, EntityId, EntityKind, Image, Link, LinkAddr, Place, SectionKind, Slot,
};
use rayon::prelude::*;

use crate::lists::Lists;
use crate::originals::{self, Unowned};
use crate::outline::{OutlineIndex, Outlines};
use crate::scan::Scan;
use crate::twins;

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
    pub uses: Lists<Use>,
    /// Entities whose address is in data, with the places that hold it.
    pub pointed: Lists<LinkAddr>,
    /// Functions that could not be decoded as a whole.
    pub undecoded: BTreeSet<EntityId>,
    /// Every address that anything refers to, in order: an unnamed constant
    /// ends where the next one begins.
    pub boundaries: Vec<LinkAddr>,
    boundary_index: AddressIndex,
    /// Functions that run into what follows them.
    pub(crate) runs_on: BTreeSet<EntityId>,
    /// Code without a symbol that nothing leads to, in order.
    pub(crate) dead: Vec<Range<LinkAddr>>,
    /// What each function refers to outside of itself.
    pub(crate) outlines: OutlineIndex,
}

impl Usage {
    /// Collects the references of `image`.
    #[must_use]
    pub fn of(image: &Image) -> Usage {
        let functions = functions(image);
        Usage::from(image, read(image, &functions))
    }

    /// Collects the references of two images, which may have much of their code in common.
    #[must_use]
    pub(crate) fn of_both(base: &Image, fixed: &Image) -> (Usage, Usage) {
        let alike = base.link == fixed.link
            && !base.is_of_objects()
            && !base.relocations_kept
            && !fixed.relocations_kept;
        if !alike {
            return rayon::join(|| Usage::of(base), || Usage::of(fixed));
        }
        let (one, other) = rayon::join(|| functions(base), || functions(fixed));
        let sizes = |functions: &[(EntityId, &Entity)]| -> Vec<u64> {
            functions.iter().map(|(_, entity)| entity.size).collect()
        };
        let twins = twins::twins(&sizes(&one), &sizes(&other));
        let mut alone = vec![true; other.len()];
        twins.iter().flatten().for_each(|twin| alone[*twin] = false);
        let pairs: Vec<_> = one.into_iter().zip(twins).collect();
        let both = |pairs: &[((EntityId, &Entity), Option<usize>)]| {
            let mut found = (Found::default(), Found::default());
            let (mut scan, mut its) = (Scan::default(), Scan::default());
            scan.watch(fixed);
            for (function, twin) in pairs {
                let entity = function.1;
                scan.read(base, &(entity.addr..entity.end()));
                found.0.add(base, *function, &scan);
                if let Some(twin) = twin.and_then(|twin| other.get(twin)) {
                    let template = base.bytes(entity.addr, entity.size).unwrap_or_default();
                    let code = twin.1.addr..twin.1.end();
                    if !its.repeat(&scan, template, fixed, &code) {
                        its.read(fixed, &code);
                    }
                    found.1.add(fixed, *twin, &its);
                }
            }
            (found.0.finish(), found.1.finish())
        };
        let found = pairs.par_chunks(TOGETHER).map(both);
        let (in_base, mut in_fixed): (Vec<Found>, Vec<Found>) = found.unzip();
        let rest: Vec<_> = other.iter().zip(alone).collect();
        let rest = rest.into_iter().filter_map(|(one, is)| is.then_some(*one));
        in_fixed.extend(read(fixed, &rest.collect::<Vec<_>>()));
        rayon::join(
            || Usage::from(base, in_base),
            || Usage::from(fixed, in_fixed),
        )
    }

    /// Puts together what was found in all functions.
    fn from(image: &Image, found: Vec<Found>) -> Usage {
        let mut usage = Usage::default();
        let mut references = Vec::with_capacity(found.iter().map(|f| f.references.len()).sum());
        let mut far = Vec::new();
        let mut outlines = Vec::with_capacity(found.len());
        for mut group in found {
            references.append(&mut group.references);
            far.append(&mut group.far);
            usage.undecoded.extend(group.undecoded);
            usage.runs_on.extend(group.runs_on);
            outlines.push(group.outlines);
        }
        let entities = image.entities.len();
        usage.outlines = OutlineIndex::new(entities, outlines.into_iter());
        references.par_sort_unstable();
        references.dedup();
        usage.add_references(image, &references, &far);
        drop(references);
        usage.add_data(image);
        usage
    }

    /// Adds what code refers to; `references` are in order.
    fn add_references(&mut self, image: &Image, references: &[Near], far: &[(LinkAddr, Use)]) {
        let mut uses: Vec<(EntityId, Use)> = Vec::with_capacity(references.len());
        let mut boundaries = Vec::new();
        for same in references.chunk_by(|a, b| a.0 >> 32 == b.0 >> 32) {
            let target = same[0].target(image);
            boundaries.push(target);
            if let Place::In(id, offset) = image.place(target) {
                uses.extend(same.iter().map(|near| (id, near.by(offset))));
            }
        }
        for (target, by) in far {
            boundaries.push(*target);
            if let Place::In(id, offset) = image.place(*target) {
                let branch = by.branch && offset == 0;
                uses.push((id, Use { branch, ..*by }));
            }
        }
        uses.par_sort_unstable();
        uses.dedup();
        self.uses = Lists::new(image.entities.len(), uses.into_iter());
        self.boundaries = boundaries;
        self.sort_boundaries();
    }

    fn add_data(&mut self, image: &Image) {
        let mut pointed = Vec::new();
        for (place, target) in pointers(image) {
            self.boundaries.push(target);
            if let Place::In(id, _) = image.place(target) {
                pointed.push((id, place));
            }
        }
        // Whom code without a symbol calls is called by somebody who cannot be replaced. The
        // variables that it seems to refer to are mostly marks of the linker at their place.
        self.sort_boundaries();
        let unowned = Unowned::of(image, &self.boundaries, &self.runs_on);
        self.dead = unowned.dead;
        self.boundaries
            .extend(originals::constants(image, &self.dead));
        for (place, target) in unowned.references {
            self.boundaries.push(target);
            if let Place::In(id, _) = image.place(target)
                && image.entity(id).kind != EntityKind::Object
            {
                pointed.push((id, place));
            }
        }
        // In images with fixed addresses a relocated word is found twice.
        pointed.par_sort_unstable();
        pointed.dedup();
        self.pointed = Lists::new(image.entities.len(), pointed.into_iter());
        let entities = image.entities.iter().map(|entity| entity.addr);
        self.boundaries.extend(entities);
        self.sort_boundaries();
        self.boundaries.shrink_to_fit();
        self.boundary_index = AddressIndex::new(&self.boundaries);
    }

    fn sort_boundaries(&mut self) {
        // Most of them are in order already, which this sort makes use of.
        self.boundaries.sort();
        self.boundaries.dedup();
    }

    /// The first address behind `at` that anything refers to.
    #[must_use]
    pub fn next_boundary(&self, at: LinkAddr) -> Option<LinkAddr> {
        let after = self.boundary_index.up_to(&self.boundaries, at);
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

/// A reference of a function in one word, so that millions are sorted soon: what it refers
/// to, relative to the image; who; and whether it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Near(u64);

impl Near {
    fn new(image: &Image, target: LinkAddr, by: Use) -> Option<Near> {
        let target = u32::try_from(target.checked_sub(image.base)?).ok()?;
        let user = by.by.0.checked_mul(2)? | u32::from(by.branch);
        Some(Near(u64::from(target) << 32 | u64::from(user)))
    }

    fn target(self, image: &Image) -> LinkAddr {
        LinkAddr(image.base.0 + (self.0 >> 32))
    }

    /// Who refers, `offset` bytes into an entity.
    fn by(self, offset: u64) -> Use {
        let user = self.0 as u32;
        Use {
            by: EntityId(user / 2),
            branch: user & 1 != 0 && offset == 0,
        }
    }
}

/// What was found in a group of functions.
#[derive(Default)]
struct Found {
    references: Vec<Near>,
    /// Those that lead far out of the image.
    far: Vec<(LinkAddr, Use)>,
    undecoded: Vec<EntityId>,
    runs_on: Vec<EntityId>,
    outlines: Outlines,
}

/// How many functions one thread looks through at once.
const TOGETHER: usize = 256;

/// All code of an image that has a name and a size.
fn functions(image: &Image) -> Vec<(EntityId, &Entity)> {
    let code =
        |(_, entity): &(EntityId, &Entity)| entity.kind != EntityKind::Object && entity.size > 0;
    image.entity_ids().filter(code).collect()
}

/// What is found in `functions`, in groups.
fn read(image: &Image, functions: &[(EntityId, &Entity)]) -> Vec<Found> {
    let read = |functions: &[(EntityId, &Entity)]| {
        let (mut found, mut scan) = (Found::default(), Scan::default());
        for function in functions {
            let entity = function.1;
            scan.read(image, &(entity.addr..entity.end()));
            found.add(image, *function, &scan);
        }
        found.finish()
    };
    functions.par_chunks(TOGETHER).map(read).collect()
}

impl Found {
    fn finish(mut self) -> Self {
        self.references.sort_unstable();
        self.references.dedup();
        // Room that is left over in a thousand groups is more than what they hold.
        self.references.shrink_to_fit();
        self.outlines.shrink_to_fit();
        self
    }

    fn add(&mut self, image: &Image, (by, entity): (EntityId, &Entity), scan: &Scan) {
        if scan.odd {
            self.undecoded.push(by);
        }
        if scan.runs_on {
            self.runs_on.push(by);
        }
        let own = entity.addr..entity.end();
        let tabled = scan.through_tables.iter().filter(|to| !own.contains(to));
        let tabled = tabled.map(|target| (*target, false));
        let direct = scan.references.iter().filter(|to| to.leaves(entity));
        let direct = direct.map(|to| (to.reference.target, to.calls()));
        for (target, branch) in direct.chain(tabled) {
            let by = Use { by, branch };
            match Near::new(image, target, by) {
                Some(near) => self.references.push(near),
                None => self.far.push((target, by)),
            }
        }
        self.outlines.add(image, (by, entity), scan);
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
        let mut found: Vec<LinkAddr> = Vec::new();
        walk(image, entity.addr, bytes, |step| {
            let targets = step.address.into_iter().chain(step.immediate);
            let targets = targets.map(|reference| reference.target);
            found.extend(targets.filter(|target| places.contains(target)));
        });
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
        let lowest = image.sections.first().map_or(0, |s| s.range.start.0);
        let highest = image.sections.last().map_or(0, |s| s.range.end.0);
        for section in &image.sections {
            if section.kind == SectionKind::Text || section.belongs_to_loader() {
                continue;
            }
            let words = image.section_bytes(section).as_chunks::<8>().0;
            for (index, word) in words.iter().enumerate() {
                let value = u64::from_le_bytes(*word);
                // Tables of numbers may be most of a program.
                if lowest <= value && value < highest && image.section_at(LinkAddr(value)).is_some()
                {
                    let place = LinkAddr(section.range.start.0 + index as u64 * 8);
                    found.push((place, LinkAddr(value)));
                }
            }
        }
    }
    found
}
