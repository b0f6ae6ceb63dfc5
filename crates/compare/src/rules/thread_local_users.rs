//! R-TLS, continued: whose a thread-local is.
//!
//! Code knows it by its distance from the thread pointer alone. Where two have one name (`buf.0` and
//! `buf.1` of two functions, or a static of each of two files), a name at the same place may be
//! another's; so it is told by who uses the place.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{OpKind, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, EntityKind, Image, Place, Slot, Symbol, demangle, is_rust, stem};

use crate::rules::{Finding, Rule};
use crate::{Comparison, Parts};

/// The names of thread-locals that cannot be told by them, without numbers, by their places.
type Doubtful<'c> = BTreeMap<u64, &'c str>;

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let doubtful = doubtful(c);
    if doubtful.is_empty() || c.base.tls_block != c.fixed.tls_block {
        return;
    }
    let mut refused: BTreeSet<(&str, String)> = BTreeSet::new();
    // What each function uses that it did not use before, and what still has one of its users.
    let (mut gained, mut kept) = (Vec::new(), BTreeSet::new());
    for hot in &c.hot {
        let before = uses(c.base, &hot.base, &doubtful);
        let after = uses(c.fixed, &hot.fixed, &doubtful);
        let names: BTreeSet<&str> = before.iter().chain(&after).map(|at| doubtful[at]).collect();
        for name in names {
            let of_name = |all: &[u64]| -> Vec<u64> {
                all.iter()
                    .copied()
                    .filter(|at| doubtful[at] == name)
                    .collect()
            };
            let (before, after) = (of_name(&before), of_name(&after));
            let only = |one: &[u64], other: &[u64]| one.iter().any(|at| !other.contains(at));
            let exchanged = only(&before, &after) && only(&after, &before);
            let is_same_set = !only(&before, &after) && !only(&after, &before);
            if exchanged || is_same_set && before != after {
                refused.insert((name, hot.name.clone()));
            }
            kept.extend(before.iter().filter(|at| after.contains(at)).copied());
            let new = after.iter().filter(|at| !before.contains(at));
            gained.extend(new.map(|at| (*at, hot.name.clone())));
        }
    }
    for id in &c.added {
        let used = uses(c.fixed, &c.fixed_parts(*id), &doubtful);
        let name = demangle(c.fixed.entity(*id).name());
        gained.extend(used.into_iter().map(|at| (at, name.clone())));
    }
    gained.retain(|(at, _)| !kept.contains(at));
    if !gained.is_empty() {
        let unchanged = used_by_unchanged(c, &doubtful);
        gained.retain(|(at, _)| !unchanged.contains(at));
    }
    refused.extend(gained.into_iter().map(|(at, by)| (doubtful[&at], by)));
    for (name, by) in refused {
        findings.push(Finding::refuse(
            Rule::ThreadLocals,
            demangle(name),
            format!(
                "is a name of several thread-locals, and {by} uses another place than before, \
                 where running threads may have what belongs to another function; names of their \
                 own, in an order that the fix leaves alone, would tell them apart"
            ),
        ));
    }
}

/// Thread-locals that share a name with others, or came to another file.
fn doubtful<'c>(c: &'c Comparison<'_>) -> Doubtful<'c> {
    let mut places: BTreeMap<&str, [BTreeSet<u64>; 2]> = BTreeMap::new();
    let images = [c.base, c.fixed].into_iter().enumerate();
    for (number, local) in
        images.flat_map(|(n, image)| image.thread_locals.iter().map(move |l| (n, l)))
    {
        places.entry(stem(&local.name)).or_default()[number].insert(local.addr.0);
    }
    let mut before: BTreeMap<(&str, u64), &Symbol> = BTreeMap::new();
    for local in &c.base.thread_locals {
        before.insert((&local.name, local.addr.0), local);
    }
    let moved = |local: &&Symbol| {
        let old = before.get(&(&*local.name, local.addr.0));
        !is_rust(&local.name)
            && old.is_some_and(|old| old.file != local.file || old.binding != local.binding)
    };
    let moved: BTreeSet<&str> = c
        .fixed
        .thread_locals
        .iter()
        .filter(moved)
        .map(|l| stem(&l.name))
        .collect();
    let mut found = Doubtful::new();
    for (name, [one, other]) in places {
        if one.len() > 1 || other.len() > 1 || moved.contains(name) {
            found.extend(one.into_iter().chain(other).map(|at| (at, name)));
        }
    }
    found
}

/// Places that functions use which are the same in both images.
fn used_by_unchanged(c: &Comparison<'_>, doubtful: &Doubtful<'_>) -> BTreeSet<u64> {
    let hot: BTreeSet<EntityId> = c.hot.iter().flat_map(|hot| hot.base.ids()).collect();
    let functions = c.base.entity_ids().filter(|(id, entity)| {
        entity.kind == EntityKind::Function
            && entity.size > 0
            && !hot.contains(id)
            && c.pairs.fixed_of(*id).is_some()
    });
    let part = |id| Parts {
        main: id,
        cold: Vec::new(),
    };
    functions
        .flat_map(|(id, _)| uses(c.base, &part(id), doubtful))
        .collect()
}

/// The places that a function uses, in the order of their first use.
fn uses(image: &Image, parts: &Parts, doubtful: &Doubtful<'_>) -> Vec<u64> {
    let mut found = Vec::new();
    for part in parts.ids() {
        let lines = decode(image, image.entity(part)).unwrap_or_default();
        // Of a block whose address was asked for, any number beside a register may be a distance.
        let counts = lines.iter().find_map(|line| block(image, line));
        for at in lines.iter().flat_map(|line| places(image, line, counts)) {
            if doubtful.contains_key(&at) && !found.contains(&at) {
                found.push(at);
            }
        }
    }
    found
}

/// What is to be added to a distance to make it one from the start of the block, if the
/// instruction asks where the block is.
fn block(image: &Image, line: &Line) -> Option<u64> {
    let i = &line.instruction;
    if i.memory_segment() == Register::FS && i.memory_displacement64() == 0 {
        return Some(image.tls_block);
    }
    let place = image.place(line.address?.target);
    matches!(place, Place::Slot(Slot::TlsModule(_))).then_some(0)
}

/// Places of the block that an instruction may refer to.
fn places(image: &Image, line: &Line, counts: Option<u64>) -> Vec<u64> {
    let i = &line.instruction;
    let mut found = Vec::new();
    let memory = (0..i.op_count()).any(|at| i.op_kind(at) == OpKind::Memory);
    if memory && i.memory_segment() == Register::FS {
        found.push(i.memory_displacement64().wrapping_add(image.tls_block));
    } else if let Some(counts) = counts {
        let is_stack = matches!(
            i.memory_base(),
            Register::RSP | Register::RBP | Register::RIP
        );
        if memory && !is_stack && i.memory_base() != Register::None {
            found.push(i.memory_displacement64().wrapping_add(counts));
        }
        let numbers = (0..i.op_count()).filter(|at| crate::told::is_immediate(i.op_kind(*at)));
        found.extend(numbers.map(|at| i.immediate(at).wrapping_add(counts)));
    }
    let slot = line.address.map(|reference| image.place(reference.target));
    if let Some(Place::Slot(Slot::TlsOffset(name, more) | Slot::TlsFromThreadPointer(name, more))) =
        slot
    {
        let named = image.thread_locals.iter().find(|local| local.name == name);
        let start = named.map_or(0, |local| local.addr.0);
        found.push(start.wrapping_add_signed(more));
    }
    found
}
