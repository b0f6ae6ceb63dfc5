//! R-ALLOC: what the running program allocated has the size that it asked for then.
//!
//! Sizes are constants in the argument registers of calls to allocators. They are compared
//! per function and allocator without their order, because compilers schedule calls as they
//! like. An allocation that is only new, or only gone, is the new code's own affair; one that is
//! gone where another one is new may be the same.

mod allocators;
mod calls;
mod pointers;
mod results;
mod rooms;

use std::collections::BTreeMap;

use invivo_image::{DebugData, LinkAddr, SourcePlace};

use crate::rules::{Finding, Rule};
use crate::{Comparison, line_numbers};
use allocators::Allocators;
use rooms::Room;

/// Looks at the functions of the hot set; the debug data of both images tell source lines.
pub(super) fn find(
    c: &Comparison<'_>,
    base_debug: Option<&DebugData<'_>>,
    fixed_debug: Option<&DebugData<'_>>,
) -> Vec<Finding> {
    let mut base = Allocators::of(c.base, base_debug);
    let mut fixed = Allocators::of(c.fixed, fixed_debug);
    let place = |debug: Option<&DebugData<'_>>, asked: &Asked| debug?.place_of(asked.at);
    let is_line_only = |one: &Asked, other: &Asked| {
        // Whatever can be told without the lines is asked first: to find one takes long.
        may_be_moved(one, other)
            && place(base_debug, one)
                .zip(place(fixed_debug, other))
                .is_some_and(|(before, after)| is_moved((one, &before), (other, &after)))
    };
    let mut findings = Vec::new();
    for hot in &c.hot {
        let (mut before, mut after) = (base.sizes(&hot.base), fixed.sizes(&hot.fixed));
        let known = findings.len();
        for (allocator, old) in &mut before {
            let Some(new) = after.get_mut(allocator) else {
                continue;
            };
            // What both ask for is no change, however often and in whatever order.
            cancel_by_key(old, new, |asked| Some(asked.sizes.clone()));
            cancel_by(old, new, is_line_only);
            // Copies of texts are as long as these.
            cancel_by_key(old, new, |asked| asked.text);
            if let (Some(old), Some(new)) = (old.first(), new.first()) {
                let allocator = allocator.as_str();
                let (old, new) = (&old.sizes, &new.sizes);
                findings.push(refusal(&hot.name, (allocator, old), (allocator, new)));
            }
        }
        if findings.len() == known {
            findings.extend(across(&hot.name, &before, &after));
        }
    }
    findings
}

/// What functions ask allocators for, by the allocator.
type ByAllocator = BTreeMap<String, Vec<Asked>>;

/// One allocation that became another one by another allocator: `malloc(24)`, `calloc(1, 32)`.
fn across(hot: &str, before: &ByAllocator, after: &ByAllocator) -> Option<Finding> {
    let (mut old, mut new) = (rooms(before), rooms(after));
    cancel_by(&mut old, &mut new, |(_, one), (_, other)| {
        one.is_as_much(other)
    });
    let ((running, old), (fixed, new)) = (old.first()?, new.first()?);
    let (old, new) = ((*running, &old.sizes), (*fixed, &new.sizes));
    Some(refusal(hot, old, new))
}

/// What can be held against what other allocators are asked for, by the allocator.
fn rooms(all: &ByAllocator) -> Vec<(&str, &Room)> {
    let all = all.iter();
    let rooms = all.flat_map(|(name, all)| {
        let rooms = all.iter().filter_map(|asked| asked.room.as_ref());
        rooms.map(move |room| (name.as_str(), room))
    });
    rooms.collect()
}

fn refusal(hot: &str, (allocator, old): (&str, &Sizes), (other, new): (&str, &Sizes)) -> Finding {
    let running = if allocator == other {
        String::new()
    } else {
        format!(" to {allocator}")
    };
    let text = format!(
        "hands {} to {other} in the fixed image and {}{running} in the running one: what is \
         allocated already has the old size",
        Numbers(new),
        Numbers(old)
    );
    Finding::refuse(Rule::Allocation, hot, text)
}

/// Takes out of both lists what has the same key in them; what has none stays.
fn cancel_by_key<T, K: Ord>(old: &mut Vec<T>, new: &mut Vec<T>, key: impl Fn(&T) -> Option<K>) {
    let mut counts: BTreeMap<K, (usize, usize)> = BTreeMap::new();
    for key in new.iter().filter_map(&key) {
        counts.entry(key).or_default().0 += 1;
    }
    old.retain(|one| {
        let count = key(one).and_then(|key| counts.get_mut(&key));
        let paired = count.filter(|(here, taken)| here > taken);
        paired.map(|count| count.1 += 1).is_none()
    });
    new.retain(|other| {
        let count = key(other).and_then(|key| counts.get_mut(&key));
        let paired = count.filter(|(_, taken)| *taken > 0);
        paired.map(|count| count.1 -= 1).is_none()
    });
}

/// Takes out of both lists what is the same in them by a relation that has no key. Of more than a
/// million pairs nothing is taken, and so it is refused.
fn cancel_by<T>(old: &mut Vec<T>, new: &mut Vec<T>, is_same: impl Fn(&T, &T) -> bool) {
    if old.len().saturating_mul(new.len()) > 1_000_000 {
        return;
    }
    old.retain(
        |one| match new.iter().position(|other| is_same(one, other)) {
            Some(at) => {
                new.swap_remove(at);
                false
            }
            None => true,
        },
    );
}

/// True if two calls may differ only in line numbers: `CRYPTO_malloc(size, __FILE__, __LINE__)`. The
/// first argument is none, and where it is known which ones are sizes, these are.
fn may_be_moved(one: &Asked, other: &Asked) -> bool {
    one.guessed
        && other.guessed
        && one.sizes.len() == other.sizes.len()
        && one
            .sizes
            .iter()
            .zip(&other.sizes)
            .all(|(old, new)| old.0 == new.0 && (old.1 == new.1 || old.0 > 0))
}

/// True if what differs in two such calls are the numbers of their lines.
fn is_moved((one, before): (&Asked, &SourcePlace), (other, after): (&Asked, &SourcePlace)) -> bool {
    let mut sizes = one.sizes.iter().zip(&other.sizes);
    sizes.all(|(old, new)| old.1 == new.1 || line_numbers::moved(old.1, new.1, before, after))
}

/// What a call asks an allocator for.
struct Asked {
    sizes: Sizes,
    /// True if nobody says which of the arguments are sizes.
    guessed: bool,
    /// The same for a comparison with other allocators, if it can be held against them.
    room: Option<Room>,
    /// How much longer each is than a text that is handed over, too; none if one is the length of none.
    text: Option<u64>,
    /// Where the call is.
    at: LinkAddr,
}

/// The constant sizes of one call; not every argument need be constant.
type Sizes = Vec<(usize, u64)>;

/// Sizes, for a person: `24`, `10 and 24`.
struct Numbers<'a>(&'a Sizes);

impl std::fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (_, size)) in self.0.iter().enumerate() {
            let and = if index == 0 { "" } else { " and " };
            write!(f, "{and}{size}")?;
        }
        Ok(())
    }
}
