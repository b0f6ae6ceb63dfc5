//! Which entity of the base is which of the fixed image.
//!
//! A wrong pair is the worst mistake here: it binds a patch to the wrong
//! variable or hooks the wrong function. So a name that is not unique pairs only
//! by what tells its bearers apart (their file, their users, their body), and
//! what stays ambiguous stays unpaired.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use foldhash::HashMap;
use iced_x86::{OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{Binding, Entity, EntityId, EntityKind, Image, Place, Symbol, is_rust, stem};

use crate::Usage;
use crate::copies::is_anonymous;
use crate::families::{Families, Member};

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
                self.pass(base, fixed, *key, None);
                for told_by in [
                    ToldBy::Body,
                    ToldBy::Callers,
                    ToldBy::Position,
                    ToldBy::Number,
                ] {
                    self.pass(base, fixed, *key, Some((told_by, in_base, in_fixed)));
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
        base: &Image,
        fixed: &Image,
        key: KeyOf,
        told: Option<(ToldBy, &Usage, &Usage)>,
    ) {
        let families = &self.families;
        let left = bearers(base, &families.base, key, told.is_some(), |id| {
            self.fixed_of(id).is_some()
        });
        let right = bearers(fixed, &families.fixed, key, told.is_some(), |id| {
            self.base_of(id).is_some()
        });
        let mut found = Vec::new();
        for (name, ids) in left {
            let Some(others) = right.get(&name) else {
                continue;
            };
            let Some((by, in_base, in_fixed)) = told else {
                if let ([one], [other]) = (&ids[..], &others[..]) {
                    found.push((*one, *other));
                }
                continue;
            };
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
            let mut alike: HashMap<u64, (Vec<EntityId>, Vec<EntityId>)> = HashMap::default();
            for id in ids {
                alike.entry(here.tell(id, by)).or_default().0.push(id);
            }
            for id in others {
                alike.entry(there.tell(*id, by)).or_default().1.push(*id);
            }
            let single = |both: &(Vec<EntityId>, Vec<EntityId>)| match (&both.0[..], &both.1[..]) {
                ([one], [other]) => Some((*one, *other)),
                _ => None,
            };
            found.extend(alike.values().filter_map(single));
        }
        // An entity with several names may be found twice: the same one comes first in each run.
        found.sort_unstable();
        for (one, other) in found {
            if self.fixed_of(one).is_none()
                && self.base_of(other).is_none()
                && !of_other_files(base.entity(one), fixed.entity(other))
            {
                self.insert(one, other);
            }
        }
    }
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

/// What bearers of one name are told apart by, from the first to the last resort.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ToldBy {
    /// A variable by its size, who uses it and what points to it; a function by its
    /// instructions and what they refer to.
    Body,
    /// A function also by who uses it: two copies of one helper differ in nothing else,
    /// but a fix may add or remove a call.
    Callers,
    /// A variable by who uses it where. Two blocks of one function may each have a
    /// `static char once`, of one size and with one user; as long as that user kept its
    /// instructions, the one that its tenth instruction refers to is the one that its
    /// tenth instruction referred to.
    Position,
    /// A variable by the number in its name, as long as all its users kept their instructions.
    Number,
}

/// One image of the pair, on the way.
pub(crate) struct Side<'a> {
    pub(crate) image: &'a Image,
    pub(crate) usage: &'a Usage,
    /// What a number in its name tells from others.
    pub(crate) members: &'a HashMap<EntityId, Member>,
    /// What an entity that has its pair is called in the base.
    pub(crate) pair: &'a dyn Fn(EntityId) -> Option<EntityId>,
}

impl Side<'_> {
    /// What an entity is known by: its pair, or as long as it has none its name.
    fn label(&self, id: EntityId) -> (Option<EntityId>, &str) {
        match (self.pair)(id) {
            Some(base) => (Some(base), ""),
            None => (None, stem(self.image.entity(id).name())),
        }
    }

    /// The functions that refer to `id`.
    fn users(&self, id: EntityId) -> BTreeSet<EntityId> {
        let uses = self.usage.uses.get(&id).into_iter().flatten();
        uses.map(|user| user.by).collect()
    }

    /// A number that tells `id` from others of its name.
    fn tell(&self, id: EntityId, by: ToldBy) -> u64 {
        let mut hash = DefaultHasher::new();
        let entity = self.image.entity(id);
        entity.size.hash(&mut hash);
        if entity.kind != EntityKind::Object {
            self.body(id, &mut hash);
            if by == ToldBy::Callers {
                self.callers(id, &mut hash);
            }
        // Who holds a pointer to a variable may use it anywhere.
        } else if by == ToldBy::Position
            && self.usage.uses.contains_key(&id)
            && !self.usage.pointed.contains_key(&id)
        {
            self.positions(id, &mut hash);
        } else if by == ToldBy::Number && self.members.contains_key(&id) {
            entity.name().hash(&mut hash);
            let users = self.users(id).into_iter();
            let users: BTreeSet<_> = users
                .map(|by| (self.label(by), self.tell(by, ToldBy::Body)))
                .collect();
            users.hash(&mut hash);
            self.holders(id, &mut hash);
        } else {
            self.callers(id, &mut hash);
            self.holders(id, &mut hash);
        }
        hash.finish()
    }

    fn callers(&self, id: EntityId, hash: &mut DefaultHasher) {
        let users: BTreeSet<_> = self
            .users(id)
            .into_iter()
            .map(|by| self.label(by))
            .collect();
        users.hash(hash);
    }

    /// Unnamed literals of C (`__compound_literal.3`) are known only to what points to them.
    fn holders(&self, id: EntityId, hash: &mut DefaultHasher) {
        let places = self.usage.pointed.get(&id).into_iter().flatten();
        let mut holders: Vec<_> = places
            .filter_map(|at| self.image.entity_at(*at).map(|holder| (holder, *at)))
            .map(|(holder, at)| (self.label(holder), at.0 - self.image.entity(holder).addr.0))
            .collect();
        holders.sort_unstable();
        holders.hash(hash);
    }

    fn positions(&self, id: EntityId, hash: &mut DefaultHasher) {
        let mut places = Vec::new();
        for user in self.users(id) {
            let body = self.tell(user, ToldBy::Body);
            let lines = decode(self.image, self.image.entity(user)).unwrap_or_default();
            for (index, line) in lines.iter().enumerate() {
                let refers = line
                    .references()
                    .any(|r| matches!(self.image.place(r.target), Place::In(to, _) if to == id));
                if refers {
                    places.push((self.label(user), body, index));
                }
            }
        }
        places.sort_unstable();
        places.hash(hash);
    }

    fn body(&self, id: EntityId, hash: &mut DefaultHasher) {
        for line in decode(self.image, self.image.entity(id))
            .into_iter()
            .flatten()
            .filter(|line| !line.is_padding())
        {
            shape(&line, hash);
            for reference in line.references() {
                if let Place::In(target, offset) = self.image.place(reference.target)
                    && target != id
                {
                    (self.label(target), offset).hash(hash);
                }
            }
        }
    }
}

/// What an instruction does, but for what it refers to.
pub(crate) fn shape(line: &Line, hash: &mut DefaultHasher) {
    let instruction = &line.instruction;
    instruction.code().as_near_branch().hash(hash);
    for op in 0..instruction.op_count() {
        if instruction.op_kind(op) == OpKind::Register {
            instruction.op_register(op).hash(hash);
        } else if line.immediate.is_none() && is_immediate(instruction.op_kind(op)) {
            instruction.immediate(op).hash(hash);
        }
    }
    if instruction.memory_base() != Register::RIP && line.address.is_none() {
        instruction.memory_displacement64().hash(hash);
    }
}

pub(crate) fn is_immediate(kind: OpKind) -> bool {
    use OpKind::{
        Immediate8, Immediate8_2nd, Immediate8to16, Immediate8to32, Immediate8to64, Immediate16,
        Immediate32, Immediate32to64, Immediate64,
    };
    matches!(
        kind,
        Immediate8
            | Immediate8_2nd
            | Immediate16
            | Immediate32
            | Immediate64
            | Immediate8to16
            | Immediate8to32
            | Immediate8to64
            | Immediate32to64
    )
}
