//! Which instructions of a function may have put into a register what another one finds there.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{InstructionInfoFactory, Register};
use invivo_image::x86_64::Line;
use invivo_image::{LinkAddr, Lsda};

use super::code::{Code, successors};
use crate::conventions::{changes, is_kept, reads_value};

/// The ways through a function, backwards.
pub(super) struct Ways<'a> {
    code: &'a Code<'a>,
    sources: BTreeMap<LinkAddr, Vec<LinkAddr>>,
    /// Where control comes from somewhere else: at the entry, and where exceptions are caught.
    entries: BTreeSet<LinkAddr>,
}

/// What put something into a register.
#[derive(Default)]
pub(super) struct Makers {
    pub(super) lines: BTreeSet<LinkAddr>,
    /// False if a way also leads there from the function's entry, or from where an exception is caught.
    pub(super) all: bool,
}

impl<'a> Ways<'a> {
    /// None if some instruction leads where nobody knows.
    pub(super) fn of(code: &'a Code<'a>) -> Option<Ways<'a>> {
        let entries = entries(code)?;
        let mut sources: BTreeMap<LinkAddr, Vec<LinkAddr>> = BTreeMap::new();
        // Padding leads to what is behind it, and nothing leads to padding.
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<LinkAddr> = entries.iter().copied().collect();
        while let Some(at) = waiting.pop() {
            let Some(line) = code.line(at).filter(|_| seen.insert(at)) else {
                continue;
            };
            for next in successors(line)?.into_iter().flatten() {
                sources.entry(next).or_default().push(at);
                waiting.push(next);
            }
        }
        Some(Ways {
            code,
            sources,
            entries,
        })
    }

    /// The instructions from which control comes directly to one of these from outside of them.
    pub(super) fn leading_into(&self, region: &BTreeSet<LinkAddr>) -> Vec<LinkAddr> {
        let sources = region.iter().filter_map(|at| self.sources.get(at));
        let sources = sources.flatten().copied();
        sources.filter(|at| !region.contains(at)).collect()
    }

    /// The instructions from which control comes to one.
    pub(super) fn before(&self, at: LinkAddr) -> Vec<LinkAddr> {
        self.sources.get(&at).cloned().unwrap_or_default()
    }

    /// What a register may hold behind the instructions `behind`.
    pub(super) fn makers(&self, behind: &[LinkAddr], register: Register) -> Makers {
        let mut info = InstructionInfoFactory::new();
        let mut found = Makers {
            all: true,
            ..Makers::default()
        };
        let mut seen = BTreeSet::new();
        let mut waiting = behind.to_vec();
        while let Some(at) = waiting.pop() {
            if !seen.insert(at) {
                continue;
            }
            let Some(line) = self.code.line(at) else {
                found.all = false;
                continue;
            };
            let mut used = info.info(&line.instruction).used_registers().iter();
            let is_made = used
                .any(|used| used.register().full_register() == register && changes(used))
                || line.is_call() && !is_kept(self.code.image, register);
            if is_made {
                found.lines.insert(at);
                continue;
            }
            let sources = self.sources.get(&at);
            found.all &= sources.is_some() && !self.entries.contains(&at);
            waiting.extend(sources.into_iter().flatten());
        }
        found
    }

    /// Every instruction that what a register holds behind `behind` may come from, through other registers;
    /// calls that returned it among them.
    pub(super) fn origins(&self, behind: &[LinkAddr], register: Register) -> BTreeSet<LinkAddr> {
        let mut info = InstructionInfoFactory::new();
        let mut found = BTreeSet::new();
        let mut asked = BTreeSet::new();
        let mut waiting = vec![(behind.to_vec(), register)];
        while let Some((behind, register)) = waiting.pop() {
            for at in self.makers(&behind, register).lines {
                found.insert(at);
                let Some(line) = self.code.line(at).filter(|line| !line.is_call()) else {
                    continue;
                };
                let Some(sources) = self.sources.get(&at) else {
                    continue;
                };
                let used = info.info(&line.instruction).used_registers().iter();
                for used in used.filter(|used| reads_value(used)) {
                    let register = used.register().full_register();
                    if register != Register::RSP && asked.insert((at, register)) {
                        waiting.push((sources.clone(), register));
                    }
                }
            }
        }
        found
    }
}

/// None if it is not told where exceptions are caught.
fn entries(code: &Code<'_>) -> Option<BTreeSet<LinkAddr>> {
    let image = code.image;
    if image.is_windows() {
        return None;
    }
    let mut found: BTreeSet<LinkAddr> = code.lines.first().map(Line::at).into_iter().collect();
    for part in &code.parts {
        let at = image.entity(*part).addr;
        let Some(lsda) = image.unwind.fde_at(at).and_then(|fde| fde.lsda) else {
            continue;
        };
        let lsda = Lsda::parse(image, lsda).ok()?;
        let pads = lsda.landing_pads.iter();
        found.extend(pads.filter_map(|pad| at.checked_add(*pad)));
        found.extend(lsda.elsewhere);
    }
    Some(found)
}
