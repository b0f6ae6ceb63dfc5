//! R-START, too: initialisers that run once, at the first use of what they make.
//!
//! Most have run, and a guard says so: a static of C++ with a constructor, `pthread_once`,
//! `std::call_once`, `Once` and `LazyLock` of Rust. New code that differs only there goes live and
//! is never asked.

mod behind;
mod code;
mod handed;
mod prepared;
mod reaching;

use std::collections::BTreeSet;

use invivo_image::{EntityId, LinkAddr, Place, SectionKind, is_rust, whole_of};

use crate::Comparison;
use crate::hot::Hot;
use crate::meaning::Meaning;
use crate::rules::{Finding, Rule};
use code::Code;
use prepared::{Makers, Part};

/// What calls a function once and never again.
const ONCE: [&str; 7] = [
    "pthread_once",
    "call_once",
    "CRYPTO_THREAD_run_once",
    "g_once_impl",
    "uv_once",
    "apr_thread_once",
    "InitOnceExecuteOnce",
];
/// How many instructions lie between a function's address and the call that it is handed to.
const NEAR: usize = 8;

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    let makers = Makers::of(c);
    for hot in &c.hot {
        let text = if is_run_once(c, hot.base.main) {
            "runs only at the first use of what it initialises, which most likely was: its change \
             comes too late"
        } else if may_differ_in_guarded(c, &meaning, hot) {
            "makes a static variable at its first use, which most likely was, and what differs may \
             be a part of that: such a change comes too late"
        } else {
            findings.extend(makers.part_of(hot).map(|part| told(hot, part)));
            continue;
        };
        findings.push(Finding::refuse(Rule::Start, &hot.name, text));
    }
}

/// What a function did for a static of another one.
fn told(hot: &Hot, (part, of): (Part, String)) -> Finding {
    match part {
        Part::Prepared => Finding::refuse(
            Rule::Start,
            &hot.name,
            format!(
                "prepares what {of} makes a static variable of at its first use, which most likely \
                 was: its change comes too late for that"
            ),
        ),
        Part::Made => Finding::note(
            Rule::Start,
            &hot.name,
            format!(
                "was most likely called to make a static variable of {of}, too, which keeps what the \
                 old code made of it"
            ),
        ),
    }
}

/// True if nothing but what calls a function once leads to `id`.
fn is_run_once(c: &Comparison<'_>, id: EntityId) -> bool {
    let entity = c.base.entity(id);
    let name = entity.name();
    let is_rusts = |words: &[&str]| is_rust(name) && words.iter().any(|word| name.contains(word));
    if name.contains("St9once_flag18_Prepare_execution")
        || is_rusts(&["4Once9call_once", "4Once15call_once_force"])
    {
        return true;
    }
    let uses: Vec<_> = c.base_usage.uses.get(&id).into_iter().flatten().collect();
    let pointed: Vec<_> = c
        .base_usage
        .pointed
        .get(&id)
        .into_iter()
        .flatten()
        .collect();
    if entity.names.iter().any(|symbol| symbol.exported) {
        return false;
    }
    if !pointed.is_empty() {
        // A lazy static holds what makes it.
        let holds = |at: &&LinkAddr| {
            let section = c.base.section_at(**at).map(|section| section.kind);
            let holder = c.base.entity_at(**at);
            section == Some(SectionKind::Data)
                && holder.is_some_and(|id| is_rust(c.base.entity(id).name()))
        };
        return uses.is_empty()
            && pointed.iter().all(holds)
            && is_rusts(&["$u7b$closure", "6FnOnce", "FnOnce", "NC"]);
    }
    let users: BTreeSet<EntityId> = uses.iter().map(|u| u.by).collect();
    let users: Vec<EntityId> = users
        .into_iter()
        .filter(|by| *by != id && whole_of(c.base.entity(*by).name()) != Some(name))
        .collect();
    !users.is_empty() && users.iter().all(|by| calls_once(c, *by, id))
}

/// True if `by` refers to `id` nowhere but where it is called once.
fn calls_once(c: &Comparison<'_>, by: EntityId, id: EntityId) -> bool {
    let main = whole_of(c.base.entity(by).name())
        .and_then(|whole| {
            c.hot
                .iter()
                .find(|hot| c.base.entity(hot.base.main).name() == whole)
        })
        .map_or(by, |hot| hot.base.main);
    let Some(code) = Code::of(c.base, &c.base_cold.parts(main)) else {
        return false;
    };
    let guarded: BTreeSet<LinkAddr> = code.regions().into_values().flatten().flatten().collect();
    let mut found = false;
    let mut all = code.lines.iter().enumerate().filter(|(_, line)| {
        let is = |at| matches!(c.base.place(at), Place::In(to, _) if to == id);
        line.references().any(|reference| is(reference.target))
    });
    let is_once = all.all(|(at, line)| {
        found = true;
        let behind = code.lines.iter().skip(at).take(NEAR);
        let mut calls = behind.filter(|line| line.is_call());
        let handed = calls.next().is_some_and(|call| code.calls(call, &ONCE));
        guarded.contains(&line.at()) || handed && !line.is_call()
    });
    found && is_once
}

/// True if a guard that both images have guards what may differ.
fn may_differ_in_guarded(c: &Comparison<'_>, meaning: &Meaning<'_, '_>, hot: &Hot) -> bool {
    let (one, other) = (Code::of(c.base, &hot.base), Code::of(c.fixed, &hot.fixed));
    let (Some(one), Some(other)) = (one, other) else {
        return false;
    };
    let (before, mut after) = (one.regions(), other.regions());
    for (guard, region) in before {
        // Which guard it is could not be seen.
        let Some(guard) = guard else {
            return true;
        };
        let Some(pair) = c.pairs.fixed_of(guard) else {
            continue;
        };
        let same = match (region, after.remove(&Some(pair))) {
            (Some(region), Some(Some(counterpart))) => {
                one.same_lines(&region, &other, &counterpart, meaning)
                    && handed::is_same(&one, &region, &other, &counterpart, guard, meaning)
            }
            // New code that makes nothing has nothing that comes too late.
            (_, None) => true,
            _ => false,
        };
        if !same {
            return true;
        }
    }
    // One of the base's that was made elsewhere, or one that is not known.
    after
        .keys()
        .any(|guard| guard.is_none_or(|guard| c.pairs.base_of(guard).is_some()))
}
