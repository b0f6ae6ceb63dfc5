//! R-START, too: initialisers that run once, at the first use of what they make.
//!
//! Most have run, and a guard says so: a static of C++ with a constructor, `pthread_once`,
//! `std::call_once`, `Once` and `LazyLock` of Rust. New code that differs only there goes live and
//! is never asked.

mod handed;

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{ConditionCode, FlowControl};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{
    EntityId, EntityKind, Flow, Image, LinkAddr, Place, SectionKind, is_rust, whole_of,
};

use crate::hot::{Hot, Parts};
use crate::meaning::Meaning;
use crate::rules::named::refers_to;
use crate::rules::{Finding, Rule};
use crate::told::shape;
use crate::{Comparison, Referred};

const ACQUIRE: &str = "__cxa_guard_acquire";
const ENDS: [&str; 2] = ["__cxa_guard_release", "__cxa_guard_abort"];
/// What calls a function once and never again.
const ONCE: [&str; 2] = ["pthread_once", "call_once"];
/// How many instructions lie between a function's address and the call that it is handed to.
const NEAR: usize = 8;
/// How many statics of one function are followed; with more of them nothing is told.
const MOST: usize = 500;

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for hot in &c.hot {
        let text = if is_run_once(c, hot.base.main) {
            "runs only at the first use of what it initialises, which most likely was: its change \
             comes too late"
        } else if may_differ_in_guarded(c, &meaning, hot) {
            "makes a static variable at its first use, which most likely was, and what differs may \
             be a part of that: such a change comes too late"
        } else {
            continue;
        };
        findings.push(Finding::refuse(Rule::Start, &hot.name, text));
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

/// The instructions of a function with its cold parts.
struct Code<'a> {
    image: &'a Image,
    lines: Vec<Line>,
    at: BTreeMap<LinkAddr, usize>,
}

impl<'a> Code<'a> {
    fn of(image: &'a Image, parts: &Parts) -> Option<Self> {
        let mut lines = Vec::new();
        for part in parts.ids() {
            lines.extend(decode(image, image.entity(part))?);
        }
        let at = lines.iter().enumerate().map(|(at, line)| (line.at(), at));
        let at = at.collect();
        Some(Code { image, lines, at })
    }

    fn calls(&self, line: &Line, names: &[&str]) -> bool {
        let is_jump = match line.word {
            Some(word) => word.flow == Flow::Jump,
            None => line.instruction.flow_control() == FlowControl::UnconditionalBranch,
        };
        (line.is_call() || is_jump) && refers_to(self.image, line, names)
    }

    /// What runs while a guard is held, by the guard; none where that cannot be told.
    fn regions(&self) -> BTreeMap<Option<EntityId>, Option<BTreeSet<LinkAddr>>> {
        let mut found = BTreeMap::new();
        let mut count = 0;
        for (at, line) in self.lines.iter().enumerate() {
            if !line.is_call() || !self.calls(line, &[ACQUIRE]) {
                continue;
            }
            let before = self.lines[..at].iter().rev().take(NEAR);
            let mut before = before.flat_map(Line::references);
            let guard = before.find_map(|reference| match self.image.place(reference.target) {
                Place::In(id, 0) => {
                    let entity = self.image.entity(id);
                    let is_guard = entity.kind == EntityKind::Object;
                    (is_guard && entity.name().starts_with("_ZGV")).then_some(id)
                }
                _ => None,
            });
            count += 1;
            let region = if count > MOST {
                None
            } else {
                self.region(at + 1)
            };
            let known = found.entry(guard).or_insert(Some(BTreeSet::new()));
            match (known.as_mut(), region) {
                (Some(known), Some(region)) => known.extend(region),
                _ => *known = None,
            }
        }
        found
    }

    /// What runs behind a call of `__cxa_guard_acquire` that returned something else than zero.
    fn region(&self, behind: usize) -> Option<BTreeSet<LinkAddr>> {
        let mut checks = self.lines.iter().enumerate().skip(behind).take(NEAR);
        let (at, check) =
            checks.find(|(_, line)| line.instruction.flow_control() != FlowControl::Next)?;
        let mut waiting = match check.instruction.condition_code() {
            ConditionCode::ne => vec![
                *self
                    .at
                    .get(&LinkAddr(check.instruction.near_branch_target()))?,
            ],
            ConditionCode::e => vec![at + 1],
            _ => return None,
        };
        // What is put into registers before it is asked whether the guard was taken belongs to it.
        let mut found: BTreeSet<LinkAddr> =
            self.lines.get(behind..at)?.iter().map(Line::at).collect();
        while let Some(at) = waiting.pop() {
            let line = self.lines.get(at)?;
            if self.calls(line, &ENDS) || !found.insert(line.at()) {
                continue;
            }
            let next = successors(line)?.into_iter().flatten();
            waiting.extend(next.filter_map(|next| self.at.get(&next)));
        }
        Some(found)
    }

    /// True if these instructions do the same as those of another function, one by one.
    fn same_lines(
        &self,
        these: &BTreeSet<LinkAddr>,
        other: &Code<'_>,
        those: &BTreeSet<LinkAddr>,
        meaning: &Meaning<'_, '_>,
    ) -> bool {
        let ((ours, here), (theirs, there)) = (self.numbered(these), other.numbered(those));
        // A branch leads to the instruction with the same number, or out on both sides.
        let leads_alike = |one: &Line, two: &Line| {
            let mut both = one.references().zip(two.references());
            both.all(|(a, b)| here.get(&a.target) == there.get(&b.target))
        };
        ours.len() == theirs.len()
            && ours
                .iter()
                .zip(&theirs)
                .all(|(one, two)| self.same_line(one, other, two, meaning) && leads_alike(one, two))
    }

    /// Some of the instructions, and the number of each; padding has that of what follows it.
    fn numbered(&self, chosen: &BTreeSet<LinkAddr>) -> (Vec<&Line>, BTreeMap<LinkAddr, usize>) {
        let mut lines = Vec::new();
        let mut numbers = BTreeMap::new();
        for line in self.lines.iter().filter(|line| chosen.contains(&line.at())) {
            numbers.insert(line.at(), lines.len());
            if !line.is_padding() {
                lines.push(line);
            }
        }
        (lines, numbers)
    }

    /// True if an instruction is another one's, with references of the same meaning.
    fn same_line(
        &self,
        one: &Line,
        other: &Code<'_>,
        two: &Line,
        meaning: &Meaning<'_, '_>,
    ) -> bool {
        let told = |line: &Line| {
            let mut hash = std::hash::DefaultHasher::new();
            shape(line, &mut hash);
            std::hash::Hasher::finish(&hash)
        };
        let memory = |line: &Line| {
            let i = &line.instruction;
            let scale = i.memory_index_scale();
            (i.memory_base(), i.memory_index(), scale, i.segment_prefix())
        };
        let (here, there): (Vec<_>, Vec<_>) =
            (one.references().collect(), two.references().collect());
        told(one) == told(two)
            && memory(one) == memory(two)
            && here.len() == there.len()
            && here.iter().zip(&there).all(|(a, b)| {
                let own = (self.at.get(&a.target), other.at.get(&b.target));
                let refer = |at, line| Referred {
                    at,
                    line: Some(line),
                    numbers: &[],
                };
                matches!(own, (Some(_), Some(_)))
                    || meaning
                        .same(refer(a.target, one), refer(b.target, two))
                        .is_ok()
            })
    }
}

/// Where an instruction leads in its function; none if that is not told.
fn successors(line: &Line) -> Option<[Option<LinkAddr>; 2]> {
    let target = LinkAddr(line.instruction.near_branch_target());
    match line.instruction.flow_control() {
        FlowControl::UnconditionalBranch => Some([Some(target), None]),
        FlowControl::ConditionalBranch => Some([Some(target), Some(line.end())]),
        FlowControl::IndirectBranch => None,
        FlowControl::Return | FlowControl::Exception => Some([None, None]),
        _ => Some([Some(line.end()), None]),
    }
}
