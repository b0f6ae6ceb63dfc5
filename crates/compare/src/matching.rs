//! Which entity of the base is which of the fixed image.
//!
//! A wrong pair is the worst mistake here: it binds a patch to the wrong
//! variable or hooks the wrong function. So a name that is not unique pairs only
//! by what tells its bearers apart (their file, their users, their body), and
//! what stays ambiguous stays unpaired.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use iced_x86::{OpKind, Register};
use invivo_image::x86_64::decode;
use invivo_image::{Binding, Entity, EntityId, EntityKind, Image, Place, Symbol, stem};

use crate::Usage;

/// The pairs, in both directions.
#[derive(Debug, Default)]
pub struct Pairs {
    to_fixed: HashMap<EntityId, EntityId>,
    to_base: HashMap<EntityId, EntityId>,
}

impl Pairs {
    /// The fixed image's counterpart of a base entity.
    #[must_use]
    pub fn fixed_of(&self, base: EntityId) -> Option<EntityId> {
        self.to_fixed.get(&base).copied()
    }

    /// The base's counterpart of an entity of the fixed image.
    #[must_use]
    pub fn base_of(&self, fixed: EntityId) -> Option<EntityId> {
        self.to_base.get(&fixed).copied()
    }

    /// All pairs, base first, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (EntityId, EntityId)> {
        self.to_fixed.iter().map(|(base, fixed)| (*base, *fixed))
    }

    fn insert(&mut self, base: EntityId, fixed: EntityId) {
        self.to_fixed.insert(base, fixed);
        self.to_base.insert(fixed, base);
    }

    pub(crate) fn of(base: &Image, fixed: &Image, in_base: &Usage, in_fixed: &Usage) -> Pairs {
        let mut pairs = Pairs::default();
        // From the strictest key to the loosest; each pass sees what the others left.
        let keys: [KeyOf; 5] = [
            |s| (s.binding == Binding::Global).then(|| Key::of(&s.name, None)),
            |s| s.file.as_deref().map(|file| Key::of(&s.name, Some(file))),
            |s| Some(Key::of(&s.name, None)),
            |s| {
                s.file
                    .as_deref()
                    .map(|file| Key::of(stem(&s.name), Some(file)))
            },
            |s| Some(Key::of(stem(&s.name), None)),
        ];
        for key in keys {
            pairs.pass(base, fixed, key, None);
            for tell in [distinction, position] {
                pairs.pass(base, fixed, key, Some((tell, in_base, in_fixed)));
            }
        }
        pairs
    }

    /// Pairs what has the same key, where both sides have just one bearer;
    /// with `tell`, where both have just one of the same number that it gives.
    fn pass(
        &mut self,
        base: &Image,
        fixed: &Image,
        key: KeyOf,
        tell: Option<(Tell, &Usage, &Usage)>,
    ) {
        let left = bearers(
            base,
            key,
            tell.map(|(tell, usage, _)| (tell, usage)),
            |id| self.to_fixed.contains_key(&id),
        );
        let right = bearers(
            fixed,
            key,
            tell.map(|(tell, _, usage)| (tell, usage)),
            |id| self.to_base.contains_key(&id),
        );
        for (name, ids) in left {
            if let ([one], Some([other])) = (&ids[..], right.get(&name).map(Vec::as_slice))
                && !self.to_fixed.contains_key(one)
                && !self.to_base.contains_key(other)
                && !of_other_files(base.entity(*one), fixed.entity(*other))
            {
                self.insert(*one, *other);
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

type KeyOf = fn(&Symbol) -> Option<Key<'_>>;

/// Gives a number that tells an entity from others of its name.
type Tell = fn(&Image, &Usage, EntityId) -> u64;

/// What is still to be paired, by kind, key and what tells it apart.
fn bearers<'a>(
    image: &'a Image,
    key: KeyOf,
    tell: Option<(Tell, &Usage)>,
    done: impl Fn(EntityId) -> bool,
) -> HashMap<(EntityKind, Key<'a>, u64), Vec<EntityId>> {
    let mut found: HashMap<_, Vec<EntityId>> = HashMap::new();
    for (id, entity) in image.entity_ids().filter(|(id, _)| !done(*id)) {
        let mut told = None;
        for symbol in own_names(entity) {
            // The number in `counter.3` is given anew in each build: today's
            // `counter.3` may be what another function called `counter` yesterday.
            let numbered = entity.kind == EntityKind::Object && is_numbered(&symbol.name);
            if numbered && (tell.is_none() || key(symbol).is_none_or(|k| k.name == &*symbol.name)) {
                continue;
            }
            if let Some(key) = key(symbol) {
                let told = *told
                    .get_or_insert_with(|| tell.map_or(0, |(tell, usage)| tell(image, usage, id)));
                let ids = found.entry((entity.kind, key, told)).or_default();
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
}

impl<'a> Key<'a> {
    fn of(name: &'a str, file: Option<&'a str>) -> Self {
        Key { name, file }
    }
}

/// A number that tells variables of one name apart where all else is alike: who uses them
/// where. Two blocks of one function may each have a `static char once`, of one size and
/// with one user; as long as that user kept its instructions, the one that its tenth
/// instruction refers to is the one that its tenth instruction referred to.
fn position(image: &Image, usage: &Usage, id: EntityId) -> u64 {
    let entity = image.entity(id);
    let users = usage.uses.get(&id).map(Vec::as_slice).unwrap_or_default();
    let users: BTreeSet<EntityId> = users.iter().map(|user| user.by).collect();
    // Who holds a pointer to it may use it anywhere.
    if entity.kind != EntityKind::Object || users.is_empty() || usage.pointed.contains_key(&id) {
        return distinction(image, usage, id);
    }
    let mut hash = DefaultHasher::new();
    entity.size.hash(&mut hash);
    let mut places: Vec<(&str, u64, usize)> = Vec::new();
    for user in users {
        let (name, body) = (image.entity(user).name(), distinction(image, usage, user));
        let lines = decode(image, image.entity(user)).unwrap_or_default();
        for (index, line) in lines.iter().enumerate() {
            if line
                .references()
                .any(|r| matches!(image.place(r.target), Place::In(to, _) if to == id))
            {
                places.push((stem(name), body, index));
            }
        }
    }
    places.sort_unstable();
    places.hash(&mut hash);
    hash.finish()
}

/// A number that tells bearers of one name apart: for a variable its size, who
/// uses it and what points to it; for a function its instructions and what they refer to.
fn distinction(image: &Image, usage: &Usage, id: EntityId) -> u64 {
    let entity = image.entity(id);
    let mut hash = DefaultHasher::new();
    entity.size.hash(&mut hash);
    if entity.kind == EntityKind::Object {
        let mut users: Vec<&str> = usage
            .uses
            .get(&id)
            .into_iter()
            .flatten()
            .map(|u| stem(image.entity(u.by).name()))
            .collect();
        users.sort_unstable();
        users.dedup();
        users.hash(&mut hash);
        // Unnamed literals of C (`__compound_literal.3`) are known only to what points to them.
        let mut holders: Vec<(&str, u64)> = usage
            .pointed
            .get(&id)
            .into_iter()
            .flatten()
            .filter_map(|at| {
                image
                    .entity_at(*at)
                    .map(|holder| (image.entity(holder), *at))
            })
            .map(|(holder, at)| (stem(holder.name()), at.0 - holder.addr.0))
            .collect();
        holders.sort_unstable();
        holders.hash(&mut hash);
        return hash.finish();
    }
    for line in decode(image, entity)
        .into_iter()
        .flatten()
        .filter(|line| !line.is_padding())
    {
        let instruction = &line.instruction;
        instruction.code().as_near_branch().hash(&mut hash);
        for op in 0..instruction.op_count() {
            if instruction.op_kind(op) == OpKind::Register {
                instruction.op_register(op).hash(&mut hash);
            } else if line.immediate.is_none() && is_immediate(instruction.op_kind(op)) {
                instruction.immediate(op).hash(&mut hash);
            }
        }
        if instruction.memory_base() != Register::RIP && line.address.is_none() {
            instruction.memory_displacement64().hash(&mut hash);
        }
        for reference in line.references() {
            if let Place::In(target, offset) = image.place(reference.target)
                && target != id
            {
                (stem(image.entity(target).name()), offset).hash(&mut hash);
            }
        }
    }
    hash.finish()
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
