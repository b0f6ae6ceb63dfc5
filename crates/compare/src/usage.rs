//! Who refers to what in one image: computed once, used by matching, by the
//! bounds of constants, and by the choice of hooks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use foldhash::{HashMap, HashMapExt, HashSet};
use invivo_image::x86_64::{AddressSpan, Step, walk};
use invivo_image::{
    AddressIndex, Entity, EntityId, EntityKind, Image, Link, LinkAddr, Machine, Place, SectionKind,
    Slot,
};
use rayon::prelude::*;

use crate::lists::Lists;
use crate::originals::{self, Unowned};
use crate::outline::{OutlineIndex, Outlines};
use crate::scan::Scan;
use crate::twins;

mod near;

use near::{Lately, Near};

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
        let words = |image: &Image| image.machine == Machine::Aarch64;
        let alike = base.link == fixed.link
            && !words(base)
            && !words(fixed)
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
            let (mut scan, mut its) = (Scan::of(base), Scan::of(fixed));
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
        let mut references = Vec::with_capacity(found.len());
        let mut far = Vec::new();
        let mut outlines = Vec::with_capacity(found.len());
        for mut group in found {
            references.push(group.references);
            far.append(&mut group.far);
            usage.undecoded.extend(group.undecoded);
            usage.runs_on.extend(group.runs_on);
            outlines.push(group.outlines);
        }
        let entities = image.entities.len();
        usage.outlines = OutlineIndex::new(entities, outlines.into_iter());
        usage.add_references(image, &near::in_order(references), &far);
        usage.add_data(image);
        usage
    }

    /// Adds what code refers to; `references` are in order.
    fn add_references(&mut self, image: &Image, references: &[Near], far: &[(LinkAddr, Use)]) {
        let targets = || references.chunk_by(|one, other| one.is_to_that_of(*other));
        // What each of them is, asked once for all that refer to it.
        let mut places = Vec::new();
        for same in targets() {
            let target = same[0].target(image);
            self.boundaries.push(target);
            places.push(match image.place(target) {
                Place::In(id, offset) => Some((id, offset)),
                _ => None,
            });
        }
        let mut distant = Vec::new();
        for (target, by) in far {
            self.boundaries.push(*target);
            if let Place::In(id, offset) = image.place(*target) {
                let branch = by.branch && offset == 0;
                distant.push((id, Use { branch, ..*by }));
            }
        }
        let uses = || {
            let placed = targets().zip(&places);
            let placed = placed.filter_map(|(same, place)| Some((same, (*place)?)));
            placed
                .flat_map(|(same, (id, offset))| same.iter().map(move |near| (id, near.by(offset))))
        };
        let distant = || distant.iter().copied();
        self.uses = Lists::sorted(image.entities.len(), || uses().chain(distant()));
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

/// What was found in a group of functions.
#[derive(Default)]
struct Found {
    references: Vec<Near>,
    /// Those that were found last.
    lately: Lately,
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
        let (mut found, mut scan) = (Found::default(), Scan::of(image));
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
                Some(near) if self.lately.is_new(near) => self.references.push(near),
                Some(_) => {}
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
    let addresses = AddressSpan::of(image);
    let in_code = functions.par_iter().flat_map_iter(|entity| {
        let bytes = image.bytes(entity.addr, entity.size).unwrap_or_default();
        let mut found: Vec<LinkAddr> = Vec::new();
        walk(image, addresses, entity.addr, bytes, |step: &Step| {
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
    /// Words that are looked at together.
    const TOGETHER: usize = 16;
    let imported = image.slots.values().filter_map(|slot| match slot {
        Slot::Import(name, 0) | Slot::LazyImport(name) => Some(name.as_ref()),
        _ => None,
    });
    let imported: HashSet<&str> = imported.collect();
    // Names of C++ are longer than most that are imported, and to hash them all takes long.
    let lengths: HashSet<usize> = imported.iter().map(|name| name.len()).collect();
    let is_imported = |name: &str| lengths.contains(&name.len()) && imported.contains(name);
    let mut defined: HashMap<&str, LinkAddr> = HashMap::new();
    for entity in &image.entities {
        for symbol in entity.names.iter().filter(|s| is_imported(&s.name)) {
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
    found.extend(image.relative_words.iter().map(|(at, to)| (*at, *to)));
    if image.link == Link::Fixed {
        let lowest = image.sections.first().map_or(0, |s| s.range.start.0);
        let highest = image.sections.last().map_or(0, |s| s.range.end.0);
        for section in &image.sections {
            if section.kind == SectionKind::Text || section.belongs_to_loader() {
                continue;
            }
            let words = image.section_bytes(section).as_chunks::<8>().0;
            let within = |word: &[u8; 8]| {
                let value = u64::from_le_bytes(*word);
                lowest <= value && value < highest
            };
            for (number, words) in words.chunks(TOGETHER).enumerate() {
                // Tables of numbers may be most of a program.
                if !words.iter().fold(false, |any, word| any | within(word)) {
                    continue;
                }
                for (index, word) in words.iter().enumerate().filter(|(_, word)| within(word)) {
                    let value = LinkAddr(u64::from_le_bytes(*word));
                    if image.section_at(value).is_some() {
                        let index = (number * TOGETHER + index) as u64;
                        found.push((LinkAddr(section.range.start.0 + index * 8), value));
                    }
                }
            }
        }
    }
    found
}
