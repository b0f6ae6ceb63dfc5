//! Numbers that live data hold and no type tells of: states and flags that macros name.
//!
//! One function keeps another number at a place than it did, and one looks for that other number there: what
//! was kept before is not found any more.

mod kept;
mod registers;

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::demangle;

use crate::Comparison;
use crate::hot::Hot;
use crate::rules::{Finding, Rule};
use kept::{Holder, Numbers, Told};

/// How many states something has at most.
const MOST: usize = 64;

/// One number, or bits, became another at a place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Exchange {
    holder: Holder,
    bits: bool,
    old: u64,
    new: u64,
}

pub(in crate::rules) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let known = |id| Some(id);
    let paired = |id| c.pairs.base_of(id);
    let mut stored: BTreeMap<Exchange, &Hot> = BTreeMap::new();
    let mut asked: BTreeMap<Exchange, &Hot> = BTreeMap::new();
    for hot in &c.hot {
        let before = Numbers::of(c.base, &hot.base, &known);
        let after = Numbers::of(c.fixed, &hot.fixed, &paired);
        for exchange in exchanges(&before.stored, &after.stored) {
            stored.entry(exchange).or_insert(hot);
        }
        for exchange in exchanges(&before.asked, &after.asked) {
            asked.entry(exchange).or_insert(hot);
            if let Some(elsewhere) = exchange.elsewhere() {
                asked.entry(elsewhere).or_insert(hot);
            }
        }
    }
    for (exchange, by) in &stored {
        let elsewhere = || exchange.elsewhere().and_then(|one| asked.get(&one));
        let Some(reader) = asked.get(exchange).or_else(elsewhere) else {
            continue;
        };
        let Exchange { old, new, .. } = exchange;
        let place = match exchange.holder {
            Holder::Offset(offset) => format!("at offset {offset}"),
            Holder::Variable(id, _) => format!("in {}", demangle(c.base.entity(id).name())),
        };
        let what = if exchange.bits { "bits" } else { "the number" };
        let text = format!(
            "keeps {what} {new} {place} where it kept {old}, and {} looks for {new} there: live data hold \
             {old}, and are not known for what they are; give the number that is new another value, and \
             leave those that were there",
            reader.name
        );
        findings.push(Finding::refuse(Rule::Layout, &by.name, text));
    }
}

/// The numbers that came where others went, each with each; of bits all of those that came.
fn exchanges(before: &Told, after: &Told) -> Vec<Exchange> {
    let mut found = Vec::new();
    for (holder, old) in &before.bits {
        let new = after.bits.get(holder).copied().unwrap_or(0);
        let (gone, come) = (old & !new, new & !old);
        // A bit beside those that were there takes nothing from them.
        if gone != 0 && come != 0 {
            found.push(Exchange::of(*holder, true, gone, come));
        }
    }
    let none = BTreeSet::new();
    for (holder, old) in &before.numbers {
        let new = after.numbers.get(holder).unwrap_or(&none);
        // A place with that many numbers holds what is read, and no state.
        if old.len().max(new.len()) > MOST {
            continue;
        }
        let gone: Vec<u64> = old.difference(new).copied().collect();
        let come: Vec<u64> = new.difference(old).copied().collect();
        // Where none took the place of another, one is new or needed no more.
        for gone in gone.iter().filter(|_| gone.len() == come.len()) {
            let all = come.iter();
            found.extend(all.map(|come| Exchange::of(*holder, false, *gone, *come)));
        }
    }
    found
}

impl Exchange {
    /// The same, of a member of a variable, as one that is known only by a pointer to it: `one.state` and
    /// `user->state`.
    fn elsewhere(&self) -> Option<Self> {
        match self.holder {
            Holder::Variable(_, offset) if offset > 0 => Some(Exchange {
                holder: Holder::Offset(offset.try_into().ok()?),
                ..*self
            }),
            _ => None,
        }
    }

    fn of(holder: Holder, bits: bool, old: u64, new: u64) -> Self {
        Exchange {
            holder,
            bits,
            old,
            new,
        }
    }
}
