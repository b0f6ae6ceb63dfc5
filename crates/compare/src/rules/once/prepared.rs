//! Functions that differ and are called on the way to a guard: what they leave is what the static behind
//! it was made of.
//!
//! `prepare(path); static const Config made(path);` needs no change of its own to make another thing of
//! a changed `prepare`, and it never will: the static is made.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::{InstructionInfoFactory, Mnemonic, Register};
use invivo_image::{EntityId, EntityKind, LinkAddr, demangle};

use super::behind::{self, Access, led_to};
use super::code::Code;
use super::handed::{before, data, handed, reads_frame};
use super::reaching::Ways;
use crate::Comparison;
use crate::conventions::{PARAMETERS, reads_value};
use crate::hot::Hot;

/// How many calls may lie between a guard's function and one that differs.
const DEEPEST: u32 = 3;

/// What a changed function did for a static that is made already.
pub(super) enum Part {
    /// It left what the static is made of.
    Prepared,
    /// It was called to make it, and is called elsewhere, too.
    Made,
}

/// Functions with statics that are made at their first use.
pub(super) struct Makers<'c, 'a> {
    c: &'c Comparison<'a>,
    makers: BTreeMap<EntityId, Maker<'a>>,
}

/// One of them, each part of which is looked at once.
struct Maker<'a> {
    code: Code<'a>,
    /// Its calls, and the functions that they lead to.
    calls: Vec<(LinkAddr, EntityId)>,
    regions: OnceCell<Vec<(EntityId, BTreeSet<LinkAddr>)>>,
}

impl<'a> Maker<'a> {
    fn of(code: Code<'a>) -> Self {
        let mut calls = Vec::new();
        for line in code.lines.iter().filter(|line| line.is_call()) {
            calls.extend(led_to(code.image, line).map(|to| (line.at(), to)));
        }
        Maker {
            calls,
            regions: OnceCell::new(),
            code,
        }
    }

    /// What runs while a guard is held, by the guard, as far as that can be told.
    fn regions(&self) -> &[(EntityId, BTreeSet<LinkAddr>)] {
        self.regions.get_or_init(|| {
            let regions = self.code.regions().into_iter();
            regions
                .filter_map(|(guard, region)| Some((guard?, region?)))
                .collect()
        })
    }
}

impl<'c, 'a> Makers<'c, 'a> {
    pub(super) fn of(c: &'c Comparison<'a>) -> Self {
        let guards = c.base.entity_ids().filter(|(_, entity)| {
            entity.kind == EntityKind::Object && entity.name().starts_with("_ZGV")
        });
        let uses = guards.flat_map(|(id, _)| c.base_usage.uses.get(&id).into_iter().flatten());
        let users: BTreeSet<EntityId> = uses.map(|one| c.base_cold.whole(one.by)).collect();
        let code = |id| Code::of(c.base, &c.base_cold.parts(id));
        let maker = |id| Some((id, Maker::of(code(id)?)));
        Makers {
            c,
            makers: users.into_iter().filter_map(maker).collect(),
        }
    }

    /// What `hot` did for a static, and the function that has it.
    pub(super) fn part_of(&self, hot: &Hot) -> Option<(Part, String)> {
        if self.makers.is_empty() {
            return None;
        }
        let leading = self.leading(hot.base.main);
        let filled = OnceCell::new();
        let mut made = None;
        for (id, maker) in &self.makers {
            let calls = maker.calls.iter().filter(|(_, to)| leading.contains(to));
            let calls: BTreeSet<LinkAddr> = calls.map(|(at, _)| *at).collect();
            if *id == hot.base.main || calls.is_empty() {
                continue;
            }
            let name = || demangle(self.c.base.entity(*id).name());
            let filled = || filled.get_or_init(|| self.filled(hot));
            for (guard, region) in maker.regions() {
                if prepares(&maker.code, (*guard, region), &calls, filled) {
                    return Some((Part::Prepared, name()));
                }
                if !calls.is_disjoint(region) {
                    made.get_or_insert_with(|| (Part::Made, name()));
                }
            }
        }
        made
    }

    /// The functions that lead to one, by calls of calls.
    fn leading(&self, to: EntityId) -> BTreeSet<EntityId> {
        let mut found = BTreeSet::from([to]);
        let mut waiting = VecDeque::from([(to, 0)]);
        while let Some((id, depth)) = waiting.pop_front() {
            if depth == DEEPEST {
                continue;
            }
            let uses = self.c.base_usage.uses.get(&id).into_iter().flatten();
            for by in uses.filter(|one| one.branch).map(|one| one.by) {
                let by = self.c.base_cold.whole(by);
                if found.insert(by) {
                    waiting.push_back((by, depth + 1));
                }
            }
        }
        found
    }

    /// The variables that a function may fill, in one image or the other.
    fn filled(&self, hot: &Hot) -> BTreeSet<String> {
        // What is made under a guard counts on neither side, and the other one leaves it out.
        let filled = |image, id| behind::functions(image, vec![id], Access::Fills, "");
        let mut all = filled(self.c.base, hot.base.main);
        all.extend(filled(self.c.fixed, hot.fixed.main));
        all
    }
}

/// True if calls that lead to a function which has `filled` something come before a region that is made of it.
fn prepares<'f>(
    code: &Code<'_>,
    (guard, region): (EntityId, &BTreeSet<LinkAddr>),
    calls: &BTreeSet<LinkAddr>,
    filled: impl FnOnce() -> &'f BTreeSet<String>,
) -> bool {
    let before = before(code, region);
    let calls: BTreeSet<LinkAddr> = calls.intersection(&before).copied().collect();
    if calls.is_empty() {
        return false;
    }
    let made = code.image.entity(guard).name().replacen("_ZGV", "_Z", 1);
    !filled().is_disjoint(&data(code, region, Access::Any, &made))
        || hands_over(code, region, &before, &calls)
}

/// True if what one of these calls returned, or put into the frame, may be what a region is handed.
fn hands_over(
    code: &Code<'_>,
    region: &BTreeSet<LinkAddr>,
    before: &BTreeSet<LinkAddr>,
    calls: &BTreeSet<LinkAddr>,
) -> bool {
    let Some(ways) = Ways::of(code) else {
        return true;
    };
    let entry = ways.leading_into(region);
    let from_calls = |behind: &[LinkAddr], register| {
        let origins = ways.origins(behind, register);
        (!origins.is_disjoint(calls), origins)
    };
    let on_frame = |origins: &BTreeSet<LinkAddr>| {
        let mut lines = origins.iter().filter_map(|at| code.line(*at));
        lines.any(|line| !line.is_call() && reads_frame(line))
    };
    let mut in_frame = false;
    match handed(code, region, before) {
        None => in_frame = true,
        Some(registers) => {
            for register in registers {
                let (returned, origins) = from_calls(&entry, register);
                if returned {
                    return true;
                }
                in_frame |= on_frame(&origins);
            }
        }
    }
    in_frame
        && (calls.iter().any(|call| {
            let before = ways.before(*call);
            let mut parameters = PARAMETERS.into_iter();
            parameters.any(|register| takes_frame(code, &ways.origins(&before, register)))
        }) || stores_result(code, &ways, before, calls))
}

/// True if one of these takes an address in the frame.
fn takes_frame(code: &Code<'_>, origins: &BTreeSet<LinkAddr>) -> bool {
    let mut lines = origins.iter().filter_map(|at| code.line(*at));
    lines.any(|line| {
        let i = &line.instruction;
        let is_frame = |register: Register| register == Register::RSP;
        i.mnemonic() == Mnemonic::Lea && is_frame(i.memory_base())
            || i.mnemonic() == Mnemonic::Mov && i.op_count() == 2 && is_frame(i.op1_register())
    })
}

/// True if what one of the calls returned is put into memory before the region.
fn stores_result(
    code: &Code<'_>,
    ways: &Ways<'_>,
    before: &BTreeSet<LinkAddr>,
    calls: &BTreeSet<LinkAddr>,
) -> bool {
    let mut info = InstructionInfoFactory::new();
    let lines = before.iter().filter_map(|at| code.line(*at));
    let mut stores = lines.filter(|line| {
        let i = &line.instruction;
        !line.is_call() && i.op_count() > 0 && i.op0_kind() == iced_x86::OpKind::Memory
    });
    stores.any(|line| {
        let behind = ways.before(line.at());
        let used = info.info(&line.instruction).used_registers().iter();
        let read = used.filter(|used| reads_value(used));
        let read = read.map(|used| used.register().full_register());
        let mut read = read.filter(|register| *register != Register::RSP);
        read.any(|register| !ways.origins(&behind, register).is_disjoint(calls))
    })
}
