//! What an initialiser under a guard is handed.
//!
//! Its instructions may be the same in both images and find other values where they read:
//! `static const X made(one)` that became `made(other)` takes it out of the same register. So either
//! all that leads there is the same, too, or nothing is read there that was made before, but for constants.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedRegister,
};
use invivo_image::LinkAddr;
use invivo_image::x86_64::Line;

use super::Code;
use crate::meaning::Meaning;

/// Registers that a call leaves as they are; what the others hold was put there since the guard was taken,
/// which is a call.
const KEPT: [Register; 8] = [
    Register::RBX,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];
/// Those that a call leaves as they are for Windows alone.
const KEPT_BY_WINDOWS: [Register; 2] = [Register::RSI, Register::RDI];

/// True if what the two regions, whose instructions are the same, find is shown to be the same.
pub(super) fn is_same(
    one: &Code<'_>,
    region: &BTreeSet<LinkAddr>,
    other: &Code<'_>,
    counterpart: &BTreeSet<LinkAddr>,
    meaning: &Meaning<'_, '_>,
) -> bool {
    let (ours, theirs) = (before(one, region), before(other, counterpart));
    one.same_lines(&ours, other, &theirs, meaning)
        || handed(one, region).is_some_and(|registers| {
            registers.into_iter().all(|register| {
                let made = (maker(one, &ours, register), maker(other, &theirs, register));
                matches!(made, (Some(here), Some(there))
                    if one.same_line(here, other, there, meaning))
            })
        })
}

/// The instructions outside a region that may lead to it.
fn before(code: &Code<'_>, region: &BTreeSet<LinkAddr>) -> BTreeSet<LinkAddr> {
    let mut sources: BTreeMap<LinkAddr, Vec<LinkAddr>> = BTreeMap::new();
    for line in &code.lines {
        let Some(next) = successors(line) else {
            // It may lead anywhere.
            let all = code.lines.iter().map(Line::at);
            return all.filter(|at| !region.contains(at)).collect();
        };
        for next in next.into_iter().flatten() {
            sources.entry(next).or_default().push(line.at());
        }
    }
    let mut found = region.clone();
    let mut waiting: Vec<LinkAddr> = region.iter().copied().collect();
    while let Some(at) = waiting.pop() {
        let sources = sources.get(&at).into_iter().flatten();
        waiting.extend(sources.copied().filter(|source| found.insert(*source)));
    }
    found.retain(|at| !region.contains(at));
    found
}

/// Where an instruction leads in its function; none if that is not told.
fn successors(line: &Line) -> Option<[Option<LinkAddr>; 2]> {
    let target = LinkAddr(line.instruction.near_branch_target());
    match line.instruction.flow_control() {
        FlowControl::UnconditionalBranch => Some([None, Some(target)]),
        FlowControl::ConditionalBranch => Some([Some(line.end()), Some(target)]),
        FlowControl::Return | FlowControl::Exception => Some([None, None]),
        FlowControl::IndirectBranch => None,
        _ => Some([Some(line.end()), None]),
    }
}

/// The registers that a region reads and did not write; none if it reads or hands on the frame, where
/// anything may have been put.
fn handed(code: &Code<'_>, region: &BTreeSet<LinkAddr>) -> Option<BTreeSet<Register>> {
    let mut info = InstructionInfoFactory::new();
    let mut handed = BTreeSet::new();
    // A register counts as written only before the first branch: what follows may come by another way.
    let mut written: BTreeSet<Register> = BTreeSet::new();
    let mut straight = true;
    for line in code.lines.iter().filter(|line| region.contains(&line.at())) {
        let instruction = &line.instruction;
        let used = info.info(instruction);
        let is_push = matches!(instruction.mnemonic(), Mnemonic::Push | Mnemonic::Pop);
        let is_frame = |register: Register| register.full_register() == Register::RSP;
        let by_frame = is_frame(instruction.memory_base())
            || (0..instruction.op_count()).any(|at| {
                instruction.op_kind(at) == OpKind::Register && is_frame(instruction.op_register(at))
            });
        if by_frame && !is_push {
            return None;
        }
        for used in used.used_registers().iter().filter(|used| reads(used)) {
            let full = used.register().full_register();
            let is_kept = KEPT.contains(&full)
                && (code.image.is_windows() || !KEPT_BY_WINDOWS.contains(&full));
            // What a call is handed it was handed since.
            if is_kept && !written.contains(&full) {
                handed.insert(full);
            }
        }
        let full = |used: &UsedRegister| {
            let register = used.register();
            let is_whole = register.is_gpr64() || register.is_gpr32();
            (used.access() == OpAccess::Write && is_whole).then(|| register.full_register())
        };
        straight &= matches!(
            instruction.flow_control(),
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall
        );
        if straight {
            written.extend(used.used_registers().iter().filter_map(full));
        }
    }
    Some(handed)
}

fn reads(used: &UsedRegister) -> bool {
    !matches!(
        used.access(),
        OpAccess::Write | OpAccess::None | OpAccess::NoMemAccess
    )
}

/// The one instruction of those before a region that puts something into a register, if that is a constant.
fn maker<'a>(
    code: &'a Code<'_>,
    before: &BTreeSet<LinkAddr>,
    register: Register,
) -> Option<&'a Line> {
    let mut info = InstructionInfoFactory::new();
    let mut makers = code.lines.iter().filter(|line| {
        let mut used = info.info(&line.instruction).used_registers().iter();
        before.contains(&line.at())
            && used.any(|used| {
                used.register().full_register() == register
                    && !matches!(
                        used.access(),
                        OpAccess::Read
                            | OpAccess::CondRead
                            | OpAccess::None
                            | OpAccess::NoMemAccess
                    )
            })
    });
    let maker = makers.next().filter(|_| makers.next().is_none())?;
    let instruction = &maker.instruction;
    let is_constant = match instruction.mnemonic() {
        Mnemonic::Lea => maker.address.is_some(),
        Mnemonic::Mov => crate::told::is_immediate(instruction.op1_kind()),
        _ => false,
    };
    is_constant.then_some(maker)
}
