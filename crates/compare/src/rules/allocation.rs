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

use std::collections::BTreeMap;

use invivo_image::{DebugData, LinkAddr, SourcePlace};

use crate::rules::{Finding, Rule};
use crate::{Comparison, line_numbers};
use allocators::{Allocators, SMALLEST};
use calls::BEHIND;

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
            let rooms = (rooms(&before, base_debug), rooms(&after, fixed_debug));
            findings.extend(across(&hot.name, rooms));
        }
    }
    findings
}

/// What functions ask allocators for, by the allocator.
type ByAllocator = BTreeMap<String, Vec<Asked>>;

/// One allocation that became another one by another allocator: `malloc(24)`, `calloc(1, 32)`.
fn across(hot: &str, (mut old, mut new): (Vec<Room>, Vec<Room>)) -> Option<Finding> {
    cancel_by(&mut old, &mut new, Room::is_as_much);
    let (one, other) = (old.first()?, new.first()?);
    let told = |room: &Room| (room.allocator.clone(), room.sizes.clone());
    let ((running, old), (fixed, new)) = (told(one), told(other));
    Some(refusal(hot, (&running, &old), (&fixed, &new)))
}

/// What can be held against what other allocators are asked for.
fn rooms(all: &ByAllocator, debug: Option<&DebugData<'_>>) -> Vec<Room> {
    let all = all.iter().filter(|(name, _)| *name != BEHIND);
    let all = all.flat_map(|(name, all)| all.iter().map(move |asked| (name, asked)));
    all.filter_map(|(name, asked)| Room::of(name, asked, debug))
        .collect()
}

/// What a call asks for, whoever it asks.
struct Room {
    allocator: String,
    sizes: Sizes,
    guessed: bool,
    whole: bool,
}

impl Room {
    /// None if nothing is a size for sure and no number is as large as one.
    fn of(allocator: &str, asked: &Asked, debug: Option<&DebugData<'_>>) -> Option<Self> {
        let (mut sizes, guessed) = match &asked.handed_on {
            // What a wrapper does with its arguments tells more than its name.
            Some(sizes) => (sizes.clone(), false),
            None => (asked.sizes.clone(), asked.guessed),
        };
        if guessed && sizes.iter().any(|(index, _)| *index > 0) {
            let place = debug.and_then(|debug| debug.place_of(asked.at));
            let is_line = |number: u64| {
                let place = place.as_ref();
                place.is_some_and(|place| line_numbers::is_of(number, place))
            };
            sizes.retain(|(index, number)| *index == 0 || !is_line(*number));
        }
        let is_large = sizes.iter().any(|(_, size)| *size >= SMALLEST);
        (!sizes.is_empty() && (is_large || !guessed)).then(|| Room {
            allocator: allocator.to_owned(),
            whole: asked.whole || asked.handed_on.is_some(),
            sizes,
            guessed,
        })
    }

    /// True if both ask for as much; where nobody says what is a size, one that is in both will do.
    fn is_as_much(&self, other: &Room) -> bool {
        let bytes = |room: &Room| {
            let sizes = room.sizes.iter().map(|(_, size)| *size);
            sizes.fold(1, u64::wrapping_mul)
        };
        let mut large = self.sizes.iter().filter(|(_, size)| *size >= SMALLEST);
        if self.guessed || other.guessed {
            bytes(self) == bytes(other)
                || large.any(|(_, size)| other.sizes.iter().any(|(_, same)| size == same))
        } else {
            self.whole == other.whole && bytes(self) == bytes(other)
        }
    }
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
    /// Those of them that a wrapper which is known by its name hands on as sizes, if it does.
    handed_on: Option<Sizes>,
    /// How much longer each is than a text that is handed over, too; none if one is the length of none.
    text: Option<u64>,
    /// True if each of the arguments that are sizes is constant.
    whole: bool,
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
