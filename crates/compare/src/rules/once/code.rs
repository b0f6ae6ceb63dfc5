//! The instructions of a function that makes something once, and which of them run under its guard.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{ConditionCode, FlowControl, Mnemonic, OpKind};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, EntityKind, Flow, Image, LinkAddr, Place};

use super::NEAR;
use crate::Referred;
use crate::hot::Parts;
use crate::meaning::Meaning;
use crate::rules::named::refers_to;
use crate::told::shape;

const ACQUIRE: &str = "__cxa_guard_acquire";
const ENDS: [&str; 2] = ["__cxa_guard_release", "__cxa_guard_abort"];
/// How many statics of one function are followed; with more of them nothing is told.
const MOST: usize = 500;
/// How many statics without a lock of one function are followed.
const MOST_UNLOCKED: usize = 64;

/// The instructions of a function with its cold parts.
pub(super) struct Code<'a> {
    pub(super) image: &'a Image,
    pub(super) parts: Vec<EntityId>,
    pub(super) lines: Vec<Line>,
    pub(super) at: BTreeMap<LinkAddr, usize>,
}

impl<'a> Code<'a> {
    pub(super) fn of(image: &'a Image, parts: &Parts) -> Option<Self> {
        let mut lines = Vec::new();
        for part in parts.ids() {
            lines.extend(decode(image, image.entity(part))?);
        }
        let at = lines.iter().enumerate().map(|(at, line)| (line.at(), at));
        let at = at.collect();
        let parts = parts.ids().collect();
        Some(Code {
            image,
            parts,
            lines,
            at,
        })
    }

    /// The instruction at a place.
    pub(super) fn line(&self, at: LinkAddr) -> Option<&Line> {
        self.lines.get(*self.at.get(&at)?)
    }

    pub(super) fn calls(&self, line: &Line, names: &[&str]) -> bool {
        let is_jump = match line.word {
            Some(word) => word.flow == Flow::Jump,
            None => line.instruction.flow_control() == FlowControl::UnconditionalBranch,
        };
        (line.is_call() || is_jump) && refers_to(self.image, line, names)
    }

    /// What runs while a guard is held, by the guard; none where that cannot be told.
    pub(super) fn regions(&self) -> BTreeMap<Option<EntityId>, Option<BTreeSet<LinkAddr>>> {
        let mut found = BTreeMap::new();
        let mut count = 0;
        for (at, line) in self.lines.iter().enumerate() {
            if !line.is_call() || !self.calls(line, &[ACQUIRE]) {
                continue;
            }
            let mut before = self.lines[..at].iter().rev().take(NEAR);
            let guard = before.find_map(|line| self.guard(line));
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
        self.unlocked(&mut found);
        found
    }

    /// The guards that a function looks at and sets itself, as with `-fno-threadsafe-statics`, and what runs where
    /// one is not set yet: what only that side of the branch leads to.
    fn unlocked(&self, found: &mut BTreeMap<Option<EntityId>, Option<BTreeSet<LinkAddr>>>) {
        let guards = self.lines.iter().filter_map(|line| self.sets_guard(line));
        let mut guards: BTreeSet<EntityId> = guards.collect();
        guards.retain(|guard| !found.contains_key(&Some(*guard)));
        // What makes so many runs at start.
        if guards.is_empty() || guards.len() > MOST_UNLOCKED {
            return;
        }
        let lines = self.lines.iter().enumerate();
        let known = lines.filter_map(|(at, line)| Some((at, self.guard(line)?)));
        let known: Vec<(usize, EntityId)> = known.collect();
        for guard in guards {
            let known = known.iter().filter(|(_, of)| *of == guard);
            let side = self.side_without(known.map(|(at, _)| *at).collect());
            found.extend(side.map(|side| (Some(guard), Some(side))));
        }
    }

    /// The guard that an instruction refers to at its first byte.
    fn guard(&self, line: &Line) -> Option<EntityId> {
        let mut all = line.references();
        all.find_map(|reference| match self.image.place(reference.target) {
            Place::In(id, 0) => {
                let entity = self.image.entity(id);
                let is_guard = entity.kind == EntityKind::Object;
                (is_guard && entity.name().starts_with("_ZGV")).then_some(id)
            }
            _ => None,
        })
    }

    fn sets_guard(&self, line: &Line) -> Option<EntityId> {
        let i = &line.instruction;
        let sets = i.mnemonic() == Mnemonic::Mov && i.op0_kind() == OpKind::Memory;
        sets.then(|| self.guard(line)).flatten()
    }

    /// What runs where the guard that these instructions refer to is not set; none where that cannot be told.
    fn side_without(&self, places: BTreeSet<usize>) -> Option<BTreeSet<LinkAddr>> {
        let mut found = BTreeSet::new();
        let reads = |line: &Line| self.sets_guard(line).is_none() && !line.takes_address();
        let looks: BTreeSet<usize> = places
            .into_iter()
            .filter(|at| reads(&self.lines[*at]))
            .collect();
        for at in &looks {
            let mut checks = self.lines.iter().enumerate().skip(at + 1).take(NEAR);
            let (at, check) =
                checks.find(|(_, line)| line.instruction.flow_control() != FlowControl::Next)?;
            let to = *self
                .at
                .get(&LinkAddr(check.instruction.near_branch_target()))?;
            let (unset, set) = match check.instruction.condition_code() {
                ConditionCode::e => (to, at + 1),
                ConditionCode::ne => (at + 1, to),
                _ => return None,
            };
            let always = self.reached(set, &looks)?;
            found.extend(self.reached(unset, &looks)?.difference(&always));
        }
        Some(found).filter(|found| !found.is_empty())
    }

    /// The instructions that one leads to, itself among them, up to where some `end` it: in a loop a guard is
    /// looked at again.
    fn reached(&self, from: usize, end: &BTreeSet<usize>) -> Option<BTreeSet<LinkAddr>> {
        let (mut found, mut waiting) = (BTreeSet::new(), vec![from]);
        while let Some(at) = waiting.pop() {
            let line = self.lines.get(at)?;
            if !end.contains(&at) && found.insert(line.at()) {
                let next = successors(line)?.into_iter().flatten();
                waiting.extend(next.filter_map(|next| self.at.get(&next)));
            }
        }
        Some(found)
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
    pub(super) fn same_lines(
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
    pub(super) fn same_line(
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
pub(super) fn successors(line: &Line) -> Option<[Option<LinkAddr>; 2]> {
    let target = LinkAddr(line.instruction.near_branch_target());
    match line.instruction.flow_control() {
        FlowControl::UnconditionalBranch => Some([Some(target), None]),
        FlowControl::ConditionalBranch => Some([Some(target), Some(line.end())]),
        FlowControl::IndirectBranch => None,
        FlowControl::Return | FlowControl::Exception => Some([None, None]),
        _ => Some([Some(line.end()), None]),
    }
}
