//! Which entity of the base is which of the fixed image.
//!
//! A wrong pair is the worst mistake here: it binds a patch to the wrong
//! variable or hooks the wrong function. So a name that is not unique pairs only
//! by what tells its bearers apart (their file, their users, their body), and
//! what stays ambiguous stays unpaired.

use std::collections::BTreeSet;

use foldhash::HashMap;
use invivo_image::{Binding, Entity, EntityId, EntityKind, Image, Symbol, is_rust, stem};

use crate::Usage;
use crate::copies::is_anonymous;
use crate::families::{Families, Member};
use crate::told::{Side, ToldBy};

/// The pairs, in both directions.
#[derive(Debug, Default)]
pub struct Pairs {
    /// By the number of the entity.
    to_fixed: Vec<Option<EntityId>>,
    to_base: Vec<Option<EntityId>>,
    count: usize,
    /// What a number in its name tells from others.
    pub(crate) families: Families,
    /// Functions of the base whose names say less than which function they are, and that nothing
    /// of the fixed image was found to be.
    pub(crate) unrecognised: BTreeSet<EntityId>,
}

impl Pairs {
    /// The fixed image's counterpart of a base entity.
    #[must_use]
    pub fn fixed_of(&self, base: EntityId) -> Option<EntityId> {
        *self.to_fixed.get(base.0 as usize)?
    }

    /// The base's counterpart of an entity of the fixed image.
    #[must_use]
    pub fn base_of(&self, fixed: EntityId) -> Option<EntityId> {
        *self.to_base.get(fixed.0 as usize)?
    }

    /// All pairs, base first, in order of it.
    pub fn iter(&self) -> impl Iterator<Item = (EntityId, EntityId)> {
        let all = (0u32..).map(EntityId).zip(&self.to_fixed);
        all.filter_map(|(base, fixed)| Some((base, (*fixed)?)))
    }

    pub(crate) fn insert(&mut self, base: EntityId, fixed: EntityId) {
        self.to_fixed[base.0 as usize] = Some(fixed);
        self.to_base[fixed.0 as usize] = Some(base);
        self.count += 1;
    }

    pub(crate) fn of(base: &Image, fixed: &Image, in_base: &Usage, in_fixed: &Usage) -> Pairs {
        let mut pairs = Pairs {
            to_fixed: vec![None; base.entities.len()],
            to_base: vec![None; fixed.entities.len()],
            count: 0,
            families: Families::of(base, fixed),
            unrecognised: BTreeSet::new(),
        };
        // From the strictest key to the loosest; each pass sees what the others left.
        let keys: [KeyOf; 5] = [
            |s| (s.binding == Binding::Global).then(|| Key::of(&s.name, None)),
            |s| Some(Key::of(&s.name, Some(source_file(s)?))),
            |s| Some(Key::of(&s.name, None)),
            |s| Some(Key::of(stem(&s.name), Some(source_file(s)?))),
            |s| Some(Key::of(stem(&s.name), None)),
        ];
        pairs.rounds((base, fixed), (in_base, in_fixed), &keys);
        pairs.pair_numbered((base, fixed), (in_base, in_fixed));
        pairs.rounds((base, fixed), (in_base, in_fixed), &keys);
        pairs
    }

    /// Pairs what is left when the copies that compilers make have their pairs: by the unit
    /// that it was compiled in, which for want of something better tells two changed copies
    /// of one function apart.
    pub(crate) fn finish(&mut self, images: (&Image, &Image), usages: (&Usage, &Usage)) {
        let keys: [KeyOf; 3] = [
            |s| {
                s.file
                    .as_deref()
                    .map(|file| Key::of(stem(&s.name), Some(file)))
            },
            |s| Some(Key::of(&s.name, None)),
            |s| Some(Key::of(stem(&s.name), None)),
        ];
        self.rounds(images, usages, &keys);
    }

    fn rounds(
        &mut self,
        (base, fixed): (&Image, &Image),
        (in_base, in_fixed): (&Usage, &Usage),
        keys: &[KeyOf],
    ) {
        // Each pair tells more about its neighbours: of two functions called `read_int`
        // one is called by a function that has its pair by now.
        const ROUNDS: usize = 8;
        for _ in 0..ROUNDS {
            let before = self.count;
            for key in keys {
                self.pass((base, in_base), (fixed, in_fixed), *key, None);
                for told_by in [
                    ToldBy::Body,
                    ToldBy::Callers,
                    ToldBy::Position,
                    ToldBy::Number,
                    ToldBy::Users,
                ] {
                    self.pass((base, in_base), (fixed, in_fixed), *key, Some(told_by));
                }
            }
            if self.count == before {
                break;
            }
        }
    }

    /// Pairs what has the same key, where both sides have just one bearer;
    /// or just one that is told from the others by the same number.
    fn pass(
        &mut self,
        (base, in_base): (&Image, &Usage),
        (fixed, in_fixed): (&Image, &Usage),
        key: KeyOf,
        told: Option<ToldBy>,
    ) {
        let families = &self.families;
        let left = bearers(base, &families.base, key, told.is_some(), |id| {
            self.fixed_of(id).is_some()
        });
        let right = bearers(fixed, &families.fixed, key, told.is_some(), |id| {
            self.base_of(id).is_some()
        });
        let here = Side {
            image: base,
            usage: in_base,
            members: &families.base,
            pair: &|id| self.fixed_of(id).is_some().then_some(id),
        };
        let there = Side {
            image: fixed,
            usage: in_fixed,
            members: &families.fixed,
            pair: &|id| self.base_of(id),
        };
        let mut found = Vec::new();
        for (name, ids) in left {
            let Some(others) = right.get(&name) else {
                continue;
            };
            let Some(by) = told else {
                if let ([one], [other]) = (&ids[..], &others[..]) {
                    found.push((*one, *other));
                }
                continue;
            };
            let mut alike: HashMap<u64, (Vec<EntityId>, Vec<EntityId>)> = HashMap::default();
            for (id, told) in ids.iter().filter_map(|id| Some((*id, here.tell(*id, by)?))) {
                alike.entry(told).or_default().0.push(id);
            }
            for (id, told) in others
                .iter()
                .filter_map(|id| Some((*id, there.tell(*id, by)?)))
            {
                alike.entry(told).or_default().1.push(id);
            }
            let single = |both: &(Vec<EntityId>, Vec<EntityId>)| match (&both.0[..], &both.1[..]) {
                ([one], [other]) => Some((*one, *other)),
                _ => None,
            };
            found.extend(alike.values().filter_map(single));
        }
        found.retain(|(one, other)| {
            !of_other_files(base.entity(*one), fixed.entity(*other))
                && (!has_moved(base.entity(*one), fixed.entity(*other))
                    || told.is_some_and(ToldBy::is_by_body)
                        && base.entity(*one).kind != EntityKind::Object
                    || here.shares_user((*one, *other), &there))
        });
        let found = in_order(found, |one, other| {
            here.tell(one, ToldBy::Body) == there.tell(other, ToldBy::Body)
        });
        for (one, other) in found {
            if self.fixed_of(one).is_none() && self.base_of(other).is_none() {
                self.insert(one, other);
            }
        }
    }
}

/// Puts the pairs into an order that is the same in each run. An entity with several names may be
/// found twice, where these came to be or were names of two: the one that did not change comes first.
fn in_order(
    mut found: Vec<(EntityId, EntityId)>,
    is_same: impl Fn(EntityId, EntityId) -> bool,
) -> Vec<(EntityId, EntityId)> {
    found.sort_unstable();
    found.dedup();
    let mut times: [HashMap<EntityId, usize>; 2] = Default::default();
    for (one, other) in &found {
        *times[0].entry(*one).or_default() += 1;
        *times[1].entry(*other).or_default() += 1;
    }
    found.sort_by_cached_key(|(one, other)| {
        let again = times[0][one] > 1 || times[1][other] > 1;
        (again && !is_same(*one, *other), *one, *other)
    });
    found
}

/// True if nothing but a name says that two are the same: it belongs to another file, or was
/// private and is not, or the other way round. Whether it moved, or is another thing altogether,
/// is told by what uses it.
fn has_moved(base: &Entity, fixed: &Entity) -> bool {
    let (one, other) = (base.symbol(), fixed.symbol());
    let is_private = |symbol: &Symbol| symbol.binding == Binding::Local;
    let internal = ["_ZL", "_ZZL"]
        .iter()
        .any(|start| one.name.starts_with(start))
        || one.name.contains("_GLOBAL__N_");
    // Pointers to what is caught (`DW.ref._ZTIi`) are hidden, and only some linkers make
    // what is hidden private.
    let is_shared = one.name.starts_with("DW.ref.") || one.name.starts_with("_Z") && !internal;
    if is_rust(&one.name) || is_shared {
        return false;
    }
    is_private(one) != is_private(other) || is_private(one) && one.file != other.file
}

/// True for two variables of one name that belong to two source files: `ready` of `a.c`,
/// which the fix removed, is not the `ready` that it added to `b.c`. A mangled name says
/// where it belongs itself, and Rust moves such variables between files.
fn of_other_files(base: &Entity, fixed: &Entity) -> bool {
    let (one, other) = (base.symbol(), fixed.symbol());
    let mangled = one.name.starts_with("_Z") || one.name.starts_with("_R");
    base.kind == EntityKind::Object
        && !mangled
        && one.file.is_some()
        && other.file.is_some()
        && one.file != other.file
}

/// The source file that a symbol belongs to. The units that Rust's compiler cuts a crate
/// into say nothing: functions move between them.
fn source_file(symbol: &Symbol) -> Option<&str> {
    symbol.file.as_deref().filter(|_| !is_rust(&symbol.name))
}

type KeyOf = fn(&Symbol) -> Option<Key<'_>>;

/// What is still to be paired, by kind and key.
fn bearers<'a>(
    image: &'a Image,
    members: &HashMap<EntityId, Member>,
    key: KeyOf,
    distinguished: bool,
    done: impl Fn(EntityId) -> bool,
) -> HashMap<(EntityKind, Key<'a>), Vec<EntityId>> {
    let mut found: HashMap<_, Vec<EntityId>> = HashMap::default();
    for (id, entity) in image.entity_ids().filter(|(id, _)| !done(*id)) {
        if let Some(member) = members.get(&id) {
            // Functions are told apart by more than one pair at a time.
            if distinguished && entity.kind == EntityKind::Object {
                let key = (entity.kind, Key::of_family(member.family));
                found.entry(key).or_default().push(id);
            }
            continue;
        }
        for symbol in own_names(entity) {
            // The number in `counter.3` is given anew in each build: today's
            // `counter.3` may be what another function called `counter` yesterday.
            let object = entity.kind == EntityKind::Object;
            if object && is_anonymous(&symbol.name) {
                continue;
            }
            let numbered = object && is_numbered(&symbol.name);
            if numbered && (!distinguished || key(symbol).is_none_or(|k| k.name == &*symbol.name)) {
                continue;
            }
            if let Some(key) = key(symbol) {
                let ids = found.entry((entity.kind, key)).or_default();
                if ids.last() != Some(&id) {
                    ids.push(id);
                }
            }
        }
    }
    found
}

/// True for a private name that the compiler made unique by a number.
fn is_numbered(name: &str) -> bool {
    // A mangled name says already which function a variable belongs to; there the
    // number counts the parts of one variable (`THREAD_INFO.0`, `THREAD_INFO.1`).
    if name.starts_with("_Z") || name.starts_with("_R") {
        return false;
    }
    name.rsplit_once('.').is_some_and(|(head, tail)| {
        !head.is_empty() && !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Names that belong to the entity: a mark of the linker (`__bss_start`) that
/// happens to have the same address does not.
fn own_names(entity: &Entity) -> impl Iterator<Item = &Symbol> {
    entity
        .names
        .iter()
        .filter(|symbol| entity.size == 0 || symbol.size > 0)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'a> {
    name: &'a str,
    file: Option<&'a str>,
    /// In place of both.
    family: Option<u64>,
}

impl<'a> Key<'a> {
    fn of(name: &'a str, file: Option<&'a str>) -> Self {
        Key {
            name,
            file,
            family: None,
        }
    }

    fn of_family(family: u64) -> Self {
        Key {
            name: "",
            file: None,
            family: Some(family),
        }
    }
}
