//! What tells the bearers of one name apart.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use foldhash::HashMap;
use iced_x86::{OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, EntityKind, Image, Place, stem};

use crate::Usage;
use crate::families::Member;

/// What bearers of one name are told apart by, from the first to the last resort.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToldBy {
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
    /// A function by who uses it alone, all of which have their pairs: it changed, as others of
    /// its name did.
    Users,
}

impl ToldBy {
    /// True if the instructions are among what tells.
    pub(crate) fn is_by_body(self) -> bool {
        matches!(self, ToldBy::Body | ToldBy::Callers)
    }
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

    /// Those that use `id` or hold its address and have their pairs, as the base calls them, and
    /// whether these are all.
    fn paired_users(&self, id: EntityId) -> (BTreeSet<EntityId>, bool) {
        let places = self.usage.pointed.get(&id).into_iter().flatten();
        let holders = places.map(|at| self.image.entity_at(*at));
        let users = self.users(id).into_iter().filter(|by| *by != id);
        let (mut paired, mut all) = (BTreeSet::new(), true);
        for user in users.map(Some).chain(holders) {
            match user.and_then(self.pair) {
                Some(user) => {
                    paired.insert(user);
                }
                None => all = false,
            }
        }
        (paired, all)
    }

    /// True if anything uses the one in the base and the other in the fixed image.
    pub(crate) fn shares_user(&self, (one, other): (EntityId, EntityId), there: &Side<'_>) -> bool {
        let (users, _) = self.paired_users(one);
        !users.is_disjoint(&there.paired_users(other).0)
    }

    /// A number that tells `id` from others of its name; none if nothing does.
    pub(crate) fn tell(&self, id: EntityId, by: ToldBy) -> Option<u64> {
        let mut hash = DefaultHasher::new();
        let entity = self.image.entity(id);
        if by == ToldBy::Users {
            let (users, all) = self.paired_users(id);
            let told = all && !users.is_empty() && entity.kind != EntityKind::Object;
            users.hash(&mut hash);
            return told.then(|| hash.finish());
        }
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
        } else if by == ToldBy::Number && self.members.get(&id).is_some_and(|m| m.counted) {
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
        Some(hash.finish())
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
    line.word.map(|word| word.told).hash(hash);
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
