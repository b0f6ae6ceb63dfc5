//! Who gives back what was taken: memory, a lock, a reference.
//!
//! The fix of a double free often moves `free` from a function to its caller, or the other way round, and no
//! prototype tells of it. A frame inside the old caller that meets the new function gives it back once more, or
//! leaves it for good.

use std::collections::{BTreeMap, BTreeSet};

use invivo_compare::Hot;
use invivo_image::{EntityId, Place, Slot, stem};

use super::Agreements;
use super::side::Side;

/// What is in the names of functions that take or give back.
const WORDS: [&str; 16] = [
    "free",
    "lock",
    "release",
    "acquire",
    "unref",
    "_ref",
    "decref",
    "incref",
    "refcount",
    "close",
    "destroy",
    "dispose",
    "sem_wait",
    "sem_post",
    "dealloc",
    "drop_in_place",
];
/// What is in names of others, which have such a word in them.
const OTHERS: [&str; 5] = ["clock", "block", "freeaddrinfo", "freeze", "closest"];
/// Operators of C++ that give memory back.
const DELETE: [&str; 2] = ["_Zdl", "_Zda"];
/// How many functions that stay may lie between two that change.
const BETWEEN: usize = 64;

/// How often each of them is called.
type Duties = BTreeMap<String, usize>;

impl Agreements<'_, '_> {
    /// True if the new function does what an old caller did, or leaves to its new caller what it did itself.
    pub(crate) fn moves_duties(&mut self, hot: &Hot) -> bool {
        let (gained, lost) = self.duties_moved(hot.base.main, hot.fixed.main);
        if gained.is_empty() && lost.is_empty() {
            return false;
        }
        self.above_old(hot.base.main).into_iter().any(|caller| {
            let Some(new) = self.c.pairs.fixed_of(caller) else {
                return false;
            };
            let (more, fewer) = self.duties_moved(caller, new);
            !more.is_disjoint(&lost) || !fewer.is_disjoint(&gained)
        })
    }

    /// What a function does more often than before, and what less often.
    fn duties_moved(
        &mut self,
        old: EntityId,
        new: EntityId,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        let (before, after) = (self.base.duties(old), self.fixed.duties(new));
        let more = |one: &Duties, other: &Duties| {
            let often = |name| other.get(name).copied().unwrap_or(0);
            let more = one.iter().filter(|(name, count)| **count > often(*name));
            more.map(|(name, _)| name.clone()).collect()
        };
        (more(&after, &before), more(&before, &after))
    }

    /// The replaced functions that call one, also through some that stay.
    fn above_old(&self, function: EntityId) -> BTreeSet<EntityId> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut waiting = vec![function];
        while let Some(called) = waiting.pop() {
            for caller in self.base.callers(called) {
                if self.hot.contains(&caller) {
                    found.insert(caller);
                } else if seen.len() < BETWEEN && seen.insert(caller) {
                    waiting.push(caller);
                }
            }
        }
        found.remove(&function);
        found
    }
}

impl Side<'_> {
    fn duties(&mut self, function: EntityId) -> Duties {
        let mut found = Duties::new();
        let Some(body) = self.body(function) else {
            return found;
        };
        for (line, callee) in body.lines.iter().zip(&body.callees) {
            let Some(to) = line.address.filter(|_| callee.is_some()) else {
                continue;
            };
            let name = match self.image.place(to.target) {
                Place::In(id, 0) => stem(self.image.entity(id).name()).to_owned(),
                Place::Stub(Slot::Import(name, _) | Slot::LazyImport(name))
                | Place::Slot(Slot::Import(name, _) | Slot::LazyImport(name)) => name.to_string(),
                _ => continue,
            };
            if is_duty(&name) {
                *found.entry(name).or_default() += 1;
            }
        }
        found
    }
}

fn is_duty(name: &str) -> bool {
    let mut lower = name.to_lowercase();
    for other in OTHERS {
        lower = lower.replace(other, "");
    }
    WORDS.iter().any(|word| lower.contains(word))
        || DELETE.iter().any(|word| name.starts_with(word))
}
