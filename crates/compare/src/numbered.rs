//! Which lambda or closure of the base is which of the fixed image.
//!
//! Their names say which function has them and a number, which moves as soon as the fix puts one
//! in front: then live callbacks of the first would run what became the second. So they are told
//! apart by what they do, all of a family at once. What changed keeps its number only where
//! nothing shows that the numbers moved.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use foldhash::{HashMap, HashMapExt};
use invivo_image::x86_64::decode;
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place, Slot, stem};

use crate::told::{Side, shape};
use crate::{Pairs, Usage};

/// How many calls of others of this sort are followed: four lead from `std::function` to what
/// it calls if nothing is inlined.
const DEEPEST: usize = 12;

/// How many changed ones of one family are held against each other.
const MOST: usize = 64;

/// How many things that others do are kept with one.
const MOST_PARTS: usize = 4096;

/// How much of a constant is read, in bytes.
const LONGEST: u64 = 4096;

impl Pairs {
    /// Pairs the functions that a number tells apart.
    pub(crate) fn pair_numbered(
        &mut self,
        (base, fixed): (&Image, &Image),
        (in_base, in_fixed): (&Usage, &Usage),
    ) {
        let mut found = Vec::new();
        let mut unrecognised = BTreeSet::new();
        let here = Side {
            image: base,
            usage: in_base,
            members: &self.families.base,
            pair: &|id| self.fixed_of(id).is_some().then_some(id),
        };
        let there = Side {
            image: fixed,
            usage: in_fixed,
            members: &self.families.fixed,
            pair: &|id| self.base_of(id),
        };
        let (mut one, mut other) = (Bodies::of(&here), Bodies::of(&there));
        let mut others = families(&there);
        for (family, base) in families(&here) {
            let fixed = others.remove(&family).unwrap_or_default();
            let family = Family {
                base: base.iter().map(|id| (*id, one.body(*id))).collect(),
                fixed: fixed.iter().map(|id| (*id, other.body(*id))).collect(),
            };
            let pairs = family.pairs((&here, &there));
            let paired: BTreeSet<EntityId> = pairs.iter().map(|(base, _)| *base).collect();
            let kept: BTreeSet<u64> = family.fixed.iter().map(|(_, body)| body.hash).collect();
            let lost = family.base.iter().filter(|(id, body)| {
                // Of one whose like is still there nothing was mended.
                !(paired.contains(id) || body.is_all && kept.contains(&body.hash))
            });
            unrecognised.extend(lost.map(|(id, _)| *id));
            found.extend(pairs);
        }
        for (base, fixed) in found {
            self.insert(base, fixed);
        }
        self.unrecognised = unrecognised;
    }
}

/// The functions of each family, in the order of their numbers.
fn families(side: &Side<'_>) -> BTreeMap<u64, Vec<EntityId>> {
    let mut found: BTreeMap<u64, Vec<EntityId>> = BTreeMap::new();
    for (id, member) in side.members {
        let is_function = side.image.entity(*id).kind != EntityKind::Object;
        if is_function && (side.pair)(*id).is_none() {
            found.entry(member.family).or_default().push(*id);
        }
    }
    for ids in found.values_mut() {
        ids.sort_by_key(|id| {
            (
                &side.members[id].numbers,
                side.image.entity(*id).name(),
                *id,
            )
        });
    }
    found
}

/// What a function does.
#[derive(Clone, Debug, Default)]
struct Body {
    hash: u64,
    /// False if something that it refers to could not be told from others.
    is_all: bool,
    /// Each thing that it does or refers to.
    parts: BTreeSet<u64>,
}

/// The functions of one family.
struct Family {
    base: Vec<(EntityId, Rc<Body>)>,
    fixed: Vec<(EntityId, Rc<Body>)>,
}

impl Family {
    fn pairs(&self, (here, there): (&Side<'_>, &Side<'_>)) -> Vec<(EntityId, EntityId)> {
        if let ([(one, _)], [(other, _)]) = (&self.base[..], &self.fixed[..]) {
            return vec![(*one, *other)];
        }
        // By index: what a function is called says as much as its place among the others, except
        // where a hash hides the number.
        let called = |side: &Side<'_>, id: EntityId, at: usize| {
            let numbers = &side.members[&id].numbers;
            let name = side.image.entity(id).name();
            if numbers.is_empty() {
                (0, name.to_owned())
            } else {
                (at, String::new())
            }
        };
        let numbered = self.base.iter().enumerate();
        let bases: Vec<_> = numbered
            .map(|(at, (id, _))| called(here, *id, at))
            .collect();
        let numbered = self.fixed.iter().enumerate();
        let fixeds: Vec<_> = numbered
            .map(|(at, (id, _))| called(there, *id, at))
            .collect();
        let mut alike: BTreeMap<u64, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (at, (_, body)) in self.base.iter().enumerate() {
            alike.entry(body.hash).or_default().0.push(at);
        }
        for (at, (_, body)) in self.fixed.iter().enumerate() {
            alike.entry(body.hash).or_default().1.push(at);
        }
        let mut pairs = Vec::new();
        for (ones, others) in alike.values() {
            let is_all = ones.iter().all(|at| self.base[*at].1.is_all);
            if ones.len() != others.len() && !is_all {
                continue;
            }
            // Those that do the same can stand for each other.
            let mut free = others.clone();
            let mut rest = Vec::new();
            for one in ones {
                match free.iter().position(|other| bases[*one] == fixeds[*other]) {
                    Some(at) => pairs.push((*one, free.remove(at))),
                    None => rest.push(*one),
                }
            }
            pairs.extend(rest.into_iter().zip(free));
        }
        let moved = pairs
            .iter()
            .any(|(one, other)| bases[*one] != fixeds[*other]);
        let left = |count: usize, done: BTreeSet<usize>| -> Vec<usize> {
            (0..count).filter(|at| !done.contains(at)).collect()
        };
        let ones = left(self.base.len(), pairs.iter().map(|pair| pair.0).collect());
        let others = left(self.fixed.len(), pairs.iter().map(|pair| pair.1).collect());
        let same_number = self.base.len() == self.fixed.len() && !moved;
        if same_number && ones.len() <= MOST && !self.crosses(&ones, &others) {
            let alone = ones.len() == 1;
            for one in &ones {
                let of_name = |other: &&usize| alone || bases[*one] == fixeds[**other];
                if let Some(other) = others.iter().find(of_name) {
                    pairs.push((*one, *other));
                }
            }
        }
        let ids = pairs.into_iter();
        ids.map(|(one, other)| (self.base[one].0, self.fixed[other].0))
            .collect()
    }

    /// True if one of the changed ones is more like another than like the one at its place.
    fn crosses(&self, ones: &[usize], others: &[usize]) -> bool {
        let common = |one: usize, other: usize| {
            let (one, other) = (&self.base[one].1.parts, &self.fixed[other].1.parts);
            one.intersection(other).count()
        };
        let mut pairs = ones.iter().zip(others).enumerate();
        pairs.any(|(at, (one, own))| {
            let own = common(*one, *own);
            let mut rest = others.iter().enumerate().filter(|(i, _)| *i != at);
            rest.any(|(_, other)| common(*one, *other) > own)
        })
    }
}

/// Reads what functions do, each once.
struct Bodies<'a> {
    side: &'a Side<'a>,
    known: HashMap<EntityId, Rc<Body>>,
    /// What is being read, from the outermost.
    open: Vec<EntityId>,
}

impl<'a> Bodies<'a> {
    fn of(side: &'a Side<'a>) -> Self {
        Bodies {
            side,
            known: HashMap::new(),
            open: Vec::new(),
        }
    }

    fn body(&mut self, id: EntityId) -> Rc<Body> {
        if let Some(known) = self.known.get(&id) {
            return Rc::clone(known);
        }
        self.open.push(id);
        let image = self.side.image;
        let mut body = Body {
            is_all: true,
            ..Body::default()
        };
        let mut hash = DefaultHasher::new();
        let lines = decode(image, image.entity(id));
        body.is_all &= lines.is_some();
        for line in lines
            .into_iter()
            .flatten()
            .filter(|line| !line.is_padding())
        {
            let mut part = DefaultHasher::new();
            shape(&line, &mut part);
            for reference in line.references() {
                self.refer(id, reference.target, &mut part, &mut body);
            }
            part.finish().hash(&mut hash);
            body.parts.insert(part.finish());
        }
        body.hash = hash.finish();
        self.open.pop();
        let body = Rc::new(body);
        // Whatever a hostile image makes of its calls, each is read once: what was cut off at one
        // that is being read stays so.
        self.known.insert(id, Rc::clone(&body));
        body
    }

    fn refer(&mut self, from: EntityId, to: LinkAddr, part: &mut DefaultHasher, body: &mut Body) {
        let image = self.side.image;
        match image.place(to) {
            Place::In(id, _) if id == from => {}
            Place::In(id, offset) => {
                offset.hash(part);
                self.entity(id, part, body);
            }
            Place::Constant(at) => {
                let next = self.side.usage.next_boundary(at);
                let size = next.map_or(LONGEST, |next| next.0 - at.0).min(LONGEST);
                let text = image.bytes(at, size).and_then(|bytes| {
                    let end = bytes.iter().position(|byte| *byte == 0)?;
                    let text = std::str::from_utf8(&bytes[..end]).ok()?;
                    let is_text = !text.is_empty() && !text.chars().any(char::is_control);
                    is_text.then(|| text.to_owned())
                });
                match text {
                    Some(text) => text.hash(part),
                    None => self.contents(at, size, part),
                }
            }
            Place::Stub(slot) | Place::Slot(slot) => match slot {
                Slot::Import(name, _) | Slot::LazyImport(name) => name.hash(part),
                Slot::Pointer(to) => {
                    if let Place::In(id, 0) = image.place(to) {
                        self.entity(id, part, body);
                    }
                }
                _ => {}
            },
            Place::Outside(_) | Place::Unnamed(_) => body.is_all = false,
        }
    }

    fn entity(&mut self, id: EntityId, part: &mut DefaultHasher, body: &mut Body) {
        let entity = self.side.image.entity(id);
        let is_object = entity.kind == EntityKind::Object;
        if is_object && entity.size > 0 && self.side.image.is_constant_at(entity.addr) {
            // Descriptions of types hold what their own names say.
            if !entity.name().starts_with("_ZT") {
                self.contents(entity.addr, entity.size.min(LONGEST), part);
            }
        } else if let Some(pair) = (self.side.pair)(id) {
            pair.hash(part);
        } else if let Some(member) = self.side.members.get(&id) {
            member.family.hash(part);
            if let Some(at) = self.open.iter().position(|open| *open == id) {
                (self.open.len() - at).hash(part);
                body.is_all &= at + 1 == self.open.len();
            } else if is_object || self.open.len() >= DEEPEST {
                body.is_all = false;
            } else {
                let inner = self.body(id);
                inner.hash.hash(part);
                body.is_all &= inner.is_all;
                let room = MOST_PARTS.saturating_sub(body.parts.len());
                body.parts.extend(inner.parts.iter().take(room));
            }
        } else {
            stem(entity.name()).hash(part);
        }
    }

    /// Bytes that the loader does not write.
    fn contents(&self, at: LinkAddr, size: u64, part: &mut DefaultHasher) {
        let image = self.side.image;
        let Some(bytes) = image.bytes(at, size) else {
            return;
        };
        let mut bytes = bytes.to_vec();
        let pointer = usize::try_from(image.pointer_size()).unwrap_or(8);
        let end = LinkAddr(at.0.saturating_add(size));
        for (slot, _) in image.slots.range(at..end) {
            let start = usize::try_from(slot.0 - at.0).unwrap_or(usize::MAX);
            let rest = bytes.get_mut(start..).unwrap_or_default();
            rest.iter_mut().take(pointer).for_each(|byte| *byte = 0);
        }
        bytes.hash(part);
    }
}
