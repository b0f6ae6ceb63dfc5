//! R-START: what runs at start has run.

mod callers;
mod flags;
mod main_only;

use std::collections::{BTreeSet, HashSet};

use invivo_image::{EntityId, Image, LinkAddr, Place, Slot, demangle, whole_of};

use crate::Comparison;
use crate::hot::Hot;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule};
use callers::Callers;
use main_only::FromMain;

/// Lists of functions that the loader calls before `main`.
const BEFORE: [&str; 3] = [".preinit_array", ".init_array", ".ctors"];
/// Those that are called at the end.
const AFTER: [&str; 2] = [".fini_array", ".dtors"];

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for name in BEFORE.iter().chain(&AFTER) {
        let (one, other) = (c.base.section_named(name), c.fixed.section_named(name));
        let same = match (one, other) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                let size = a.range.end.0 - a.range.start.0;
                size == b.range.end.0 - b.range.start.0
                    && meaning.same_data(a.range.start, b.range.start, size)
            }
            _ => false,
        };
        if !same {
            findings.push(Finding::refuse(
                Rule::Start,
                *name,
                "lists other functions in the fixed image; those of the running one ran at its start",
            ));
        }
    }
    let starters = starters(c.base);
    let mut from_main = FromMain::of(c);
    let mut callers = Callers::of(c);
    for hot in &c.hot {
        let found = if is_reached_only(c, hot, &starters) {
            Finding::refuse(
                Rule::Start,
                &hot.name,
                "runs only while the program starts, which it has: its change comes too late",
            )
        } else if from_main.leads_once(&mut callers, hot.base.main) {
            Finding::note(
                Rule::Start,
                &hot.name,
                "is called by what main does once, such as at its start: in a process that is past \
                 that call the change takes effect at the next start",
            )
        } else if let Some(flag) = flags::before(c, &mut callers, hot.base.main) {
            let flag = demangle(c.base.entity(flag).name());
            let text = format!(
                "runs only while {flag} is zero, which is set then for good: in a process in which it \
                 ran, its change comes too late"
            );
            Finding::note(Rule::Start, &hot.name, text)
        } else {
            continue;
        };
        findings.push(found);
    }
}

/// The functions that the loader calls before `main`.
fn starters(image: &Image) -> HashSet<EntityId> {
    let lists = BEFORE.iter().filter_map(|name| image.section_named(name));
    let words = lists.flat_map(|list| (list.range.start.0..list.range.end.0).step_by(8));
    words
        .filter_map(|at| match image.slots.get(&LinkAddr(at)) {
            Some(Slot::Pointer(target)) => Some(*target),
            Some(_) => None,
            None => {
                let word = image.bytes(LinkAddr(at), 8)?.try_into().ok()?;
                Some(LinkAddr(u64::from_le_bytes(word)))
            }
        })
        .filter_map(|target| match image.place(target) {
            Place::In(id, 0) => Some(id),
            _ => None,
        })
        .collect()
}

/// True if `hot` is one of `roots`, or only they lead to it, directly or through others.
pub(super) fn is_reached_only(c: &Comparison<'_>, hot: &Hot, roots: &HashSet<EntityId>) -> bool {
    let mut seen = BTreeSet::from([hot.base.main]);
    let mut waiting = vec![hot.base.main];
    let mut from_root = false;
    while let Some(id) = waiting.pop() {
        let entity = c.base.entity(id);
        let is_root = roots.contains(&id);
        from_root |= is_root;
        // A cold part jumps back into the middle of its function, which is no way in.
        let uses = c.base_usage.uses.get(&id).into_iter().flatten();
        let uses: Vec<_> = uses
            .filter(|u| whole_of(c.base.entity(u.by).name()) != Some(entity.name()))
            .collect();
        let known_elsewhere = uses.iter().any(|u| !u.branch)
            || !is_root && c.base_usage.pointed.contains_key(&id)
            || !is_root && entity.names.iter().any(|symbol| symbol.exported);
        if known_elsewhere || uses.is_empty() && !is_root {
            return false;
        }
        waiting.extend(uses.iter().map(|u| u.by).filter(|by| seen.insert(*by)));
    }
    from_root
}
