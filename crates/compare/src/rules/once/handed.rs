//! What an initialiser under a guard is handed.
//!
//! Its instructions may be the same in both images and find other values where they read:
//! `static const X made(one)` that became `made(other)` takes it out of the same register. So either
//! all that leads there is the same, too, or nothing is read there that was made before, but for constants.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedRegister};
use invivo_image::x86_64::Line;
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place, Slot, demangle};

use super::behind::{self, Access};
use super::code::{Code, successors};
use super::reaching::Ways;
use crate::conventions::{changes, is_kept, reads_value};
use crate::meaning::Meaning;

/// True if what the two regions, whose instructions are the same, find is shown to be the same.
pub(super) fn is_same(
    one: &Code<'_>,
    region: &BTreeSet<LinkAddr>,
    other: &Code<'_>,
    counterpart: &BTreeSet<LinkAddr>,
    guard: EntityId,
    meaning: &Meaning<'_, '_>,
) -> bool {
    // What the guard guards is made there, and not before.
    let guarded = one.image.entity(guard).name().replacen("_ZGV", "_Z", 1);
    let (ours, theirs) = (before(one, region), before(other, counterpart));
    one.same_lines(&ours, other, &theirs, meaning)
        || !may_be_prepared(one, region, &ours, &guarded)
            && !may_be_prepared(other, counterpart, &theirs, &guarded)
            && handed(one, region, &ours).is_some_and(|registers| {
                let ways = (Ways::of(one), Ways::of(other));
                registers.into_iter().all(|register| {
                    let made = (
                        maker(one, (region, &ours), ways.0.as_ref(), register),
                        maker(other, (counterpart, &theirs), ways.1.as_ref(), register),
                    );
                    matches!(made, (Some(here), Some(there))
                    if one.same_line(here, other, there, meaning)
                        && filled(one.image, here, &guarded).is_empty())
                })
            })
}

/// True if a region refers to data that what comes before it refers to, and may have filled for it:
/// `strcpy(path, "/etc"); static const Config made(path);`.
fn may_be_prepared(
    code: &Code<'_>,
    region: &BTreeSet<LinkAddr>,
    before: &BTreeSet<LinkAddr>,
    made: &str,
) -> bool {
    let read = data(code, region, Access::Any, made);
    !read.is_disjoint(&data(code, before, Access::Fills, made))
}

/// The variables that some instructions refer to themselves, and what they call gets at.
pub(super) fn data(
    code: &Code<'_>,
    chosen: &BTreeSet<LinkAddr>,
    behind: Access,
    made: &str,
) -> BTreeSet<String> {
    let lines = code.lines.iter().filter(|line| chosen.contains(&line.at()));
    let own = lines.flat_map(|line| filled(code.image, line, made));
    own.chain(behind::calls(code, chosen, behind, made))
        .collect()
}

/// The variables that an instruction refers to, also through slots, but for guards and for what is `made`: what
/// is in them is not always the same.
pub(super) fn filled(image: &Image, line: &Line, made: &str) -> Vec<String> {
    let named = |at: LinkAddr| match image.place(at) {
        Place::In(id, _) if !image.is_constant_at(at) => {
            let entity = image.entity(id);
            (entity.kind == EntityKind::Object).then(|| entity.name().to_owned())
        }
        _ => None,
    };
    let references = line.references().filter(|_| !line.is_call());
    let names = references.filter_map(|reference| match image.place(reference.target) {
        Place::Slot(Slot::Pointer(to)) => named(to),
        // Of a class's own functions and tables more than one initialiser may take the address.
        Place::Slot(Slot::Import(name, _)) => {
            let is_class = demangle(&name).contains('(') || name.starts_with("_ZT");
            (!is_class).then(|| name.to_string())
        }
        Place::Slot(Slot::TlsModule(_) | Slot::TlsOffset(..) | Slot::TlsFromThreadPointer(..)) => {
            Some(THREADS.to_owned())
        }
        _ => named(reference.target),
    });
    let names = names.filter(|name| !name.starts_with("_ZGV") && name != "__dso_handle");
    let own = reads_threads(line).then(|| THREADS.to_owned());
    names.filter(|name| name != made).chain(own).collect()
}

/// The name for all that is a thread's own, of which no reference tells more.
const THREADS: &str = "what is a thread's own";

/// True if an instruction gets at what is a thread's own, but for the guard of its stack.
fn reads_threads(line: &Line) -> bool {
    const STACK_GUARD: u64 = 0x28;
    let i = &line.instruction;
    let is_plain = i.memory_base() == Register::None && i.memory_index() == Register::None;
    i.segment_prefix() == Register::FS && !(is_plain && i.memory_displacement64() == STACK_GUARD)
}

/// The instructions outside a region that may lead to it.
pub(super) fn before(code: &Code<'_>, region: &BTreeSet<LinkAddr>) -> BTreeSet<LinkAddr> {
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

/// The registers that a region reads and did not write, of those that the call which takes the guard left
/// as they were; none if it reads or hands on the frame, where anything may have been put.
pub(super) fn handed(
    code: &Code<'_>,
    region: &BTreeSet<LinkAddr>,
    before: &BTreeSet<LinkAddr>,
) -> Option<BTreeSet<Register>> {
    let mut info = InstructionInfoFactory::new();
    let mut handed = BTreeSet::new();
    // What was written for sure, whatever way led there.
    let mut written: BTreeMap<LinkAddr, BTreeSet<Register>> = BTreeMap::new();
    let mut waiting: Vec<LinkAddr> = Vec::new();
    for line in code.lines.iter().filter(|line| before.contains(&line.at())) {
        let next = successors(line).into_iter().flatten().flatten();
        waiting.extend(next.filter(|next| region.contains(next)));
    }
    written.extend(waiting.iter().map(|at| (*at, BTreeSet::new())));
    while let Some(at) = waiting.pop() {
        let line = code.lines.get(*code.at.get(&at)?)?;
        let mut after = written.get(&at)?.clone();
        if reads_frame(line) {
            return None;
        }
        let used = info.info(&line.instruction).used_registers();
        for used in used.iter().filter(|used| reads_value(used)) {
            let full = used.register().full_register();
            if is_kept(code.image, full) && !after.contains(&full) {
                handed.insert(full);
            }
        }
        after.extend(used.iter().filter_map(written_whole));
        for next in successors(line)?.into_iter().flatten() {
            if !region.contains(&next) {
                continue;
            }
            let joined = match written.get(&next) {
                Some(known) => known & &after,
                None => after.clone(),
            };
            if written.get(&next) != Some(&joined) {
                written.insert(next, joined);
                waiting.push(next);
            }
        }
    }
    Some(handed)
}

pub(super) fn reads_frame(line: &Line) -> bool {
    let i = &line.instruction;
    let is_frame = |register: Register| register.full_register() == Register::RSP;
    let mut operands = 0..i.op_count();
    let by_frame = is_frame(i.memory_base())
        || operands.any(|at| i.op_kind(at) == OpKind::Register && is_frame(i.op_register(at)));
    by_frame && !matches!(i.mnemonic(), Mnemonic::Push | Mnemonic::Pop)
}

/// The register that is written, if all of it is, and for sure.
fn written_whole(used: &UsedRegister) -> Option<Register> {
    let register = used.register();
    let is_whole = register.is_gpr64() || register.is_gpr32();
    (used.access() == OpAccess::Write && is_whole).then(|| register.full_register())
}

/// The one instruction that may have put what a region finds in a register, if that is a constant.
fn maker<'a>(
    code: &'a Code<'_>,
    (region, before): (&BTreeSet<LinkAddr>, &BTreeSet<LinkAddr>),
    ways: Option<&Ways<'_>>,
    register: Register,
) -> Option<&'a Line> {
    let found = match ways {
        Some(ways) => {
            let makers = ways.makers(&ways.leading_into(region), register);
            makers.lines.into_iter().filter(|_| makers.all).collect()
        }
        None => changed(code, before, register),
    };
    let [maker] = found[..] else { return None };
    let maker = code.line(maker)?;
    let instruction = &maker.instruction;
    let to = instruction.op0_register();
    let is_constant = match instruction.mnemonic() {
        _ if !to.is_gpr64() && !to.is_gpr32() => false,
        Mnemonic::Lea => maker.address.is_some(),
        Mnemonic::Mov => crate::told::is_immediate(instruction.op1_kind()),
        _ => false,
    };
    is_constant.then_some(maker)
}

/// All instructions before a region that put something into a register.
fn changed(code: &Code<'_>, before: &BTreeSet<LinkAddr>, register: Register) -> Vec<LinkAddr> {
    let mut info = InstructionInfoFactory::new();
    let lines = code.lines.iter().filter(|line| {
        let mut used = info.info(&line.instruction).used_registers().iter();
        before.contains(&line.at())
            && used.any(|used| used.register().full_register() == register && changes(used))
    });
    lines.map(Line::at).collect()
}
