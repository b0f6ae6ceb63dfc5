//! R-ALLOC: what the running program allocated has the size that it asked for then.
//!
//! Sizes are constants in the argument registers of calls to allocators. They are compared
//! per function and allocator without their order, because compilers schedule calls as they
//! like. An allocation that is only new, or only gone, is the new code's own affair; one that is
//! gone where another one is new may be the same.

mod allocators;
mod calls;
mod pointers;

use std::collections::BTreeMap;

use invivo_image::{DebugData, LinkAddr, SourcePlace};

use crate::rules::{Finding, Rule};
use crate::{Comparison, line_numbers};
use allocators::Allocators;

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
            cancel(old, new, |one, other| one.sizes == other.sizes);
            cancel(old, new, is_line_only);
            // Copies of texts are as long as these.
            cancel(old, new, |one, other| one.is_text && other.is_text);
            if let (Some(old), Some(new)) = (old.first(), new.first()) {
                let allocator = allocator.as_str();
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
    let known = |all: &ByAllocator| -> Vec<(String, Asked)> {
        let all = all
            .iter()
            .flat_map(|(name, all)| all.iter().map(move |asked| (name, asked)));
        let all = all.filter(|(_, asked)| !asked.guessed);
        all.map(|(name, asked)| (name.clone(), asked.clone()))
            .collect()
    };
    let (mut old, mut new) = (known(before), known(after));
    cancel(&mut old, &mut new, |(_, one), (_, other)| {
        one.bytes() == other.bytes()
    });
    let ((running, one), (fixed, other)) = (old.first()?, new.first()?);
    Some(refusal(
        hot,
        (running.as_str(), one),
        (fixed.as_str(), other),
    ))
}

fn refusal(hot: &str, (allocator, old): (&str, &Asked), (other, new): (&str, &Asked)) -> Finding {
    let running = if allocator == other {
        String::new()
    } else {
        format!(" to {allocator}")
    };
    let text = format!(
        "hands {} to {other} in the fixed image and {}{running} in the running one: what is \
         allocated already has the old size",
        Numbers(&new.sizes),
        Numbers(&old.sizes)
    );
    Finding::refuse(Rule::Allocation, hot, text)
}

/// Takes out of both lists what is the same in them.
fn cancel<T>(old: &mut Vec<T>, new: &mut Vec<T>, is_same: impl Fn(&T, &T) -> bool) {
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
#[derive(Clone)]
struct Asked {
    sizes: Sizes,
    /// True if nobody says which of the arguments are sizes.
    guessed: bool,
    /// True if each is the length of a text that is handed over, too.
    is_text: bool,
    /// Where the call is.
    at: LinkAddr,
}

impl Asked {
    /// How many bytes that is, as far as it is constant.
    fn bytes(&self) -> u64 {
        let sizes = self.sizes.iter().map(|(_, size)| *size);
        sizes.fold(1, u64::wrapping_mul)
    }
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
