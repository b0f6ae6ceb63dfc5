//! Functions that a flag lets run once: `if (!ready) { fill(); ready = 1; }`.
//!
//! What they did stays done. The flag is a variable that code reaches by its name alone, and that nothing sets back.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{ConditionCode, InstructionInfoFactory, Mnemonic, OpAccess, OpKind};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityId, Image, LinkAddr, Place};

use super::callers::Callers;
use crate::Comparison;
use crate::rules::body::Body;
use crate::rules::is_variable;
use crate::told::is_immediate;

/// How many functions may use a flag.
const MOST: usize = 16;
/// How many instructions lie between a test of a flag and the branch that it decides.
const NEAR: usize = 4;

/// Variables that have to be zero, each with the instructions that run only then.
type Guarded = BTreeMap<EntityId, BTreeSet<LinkAddr>>;

/// The flag behind which alone a function is called, if there is one.
pub(super) fn before(
    c: &Comparison<'_>,
    callers: &mut Callers<'_, '_>,
    id: EntityId,
) -> Option<EntityId> {
    let mut flags: Option<Guarded> = None;
    for by in callers.only(id)?.into_iter().filter(|by| *by != id) {
        let mut own = flags_before(c.base, callers.body(by)?, id);
        if let Some(known) = &flags {
            own.retain(|flag, _| known.contains_key(flag));
            for (flag, lines) in &mut own {
                lines.extend(known.get(flag).into_iter().flatten());
            }
        }
        if own.is_empty() {
            return None;
        }
        flags = Some(own);
    }
    let mut flags = flags?.into_iter();
    let found = flags.find(|(flag, guarded)| is_set_there(c, *flag, id, guarded));
    found.map(|(flag, _)| flag)
}

/// The variables that have to be zero where the function of `body` calls `callee`.
fn flags_before(image: &Image, body: &Body<'_>, callee: EntityId) -> Guarded {
    let leads = |line: &Line| {
        let mut references = line.references();
        references.any(|r| matches!(image.place(r.target), Place::In(id, 0) if id == callee))
    };
    let tests = tests(image, body);
    let asked: BTreeSet<EntityId> = tests.values().map(|(flag, _)| *flag).collect();
    if asked.is_empty() {
        return Guarded::new();
    }
    let next = body.next();
    let guarded = |flag: EntityId| {
        let open = body.reached(&next, |from, to| {
            let test = tests.get(&from);
            test.is_none_or(|(tested, zero)| *tested != flag || *zero != to)
        });
        let mut lines = body.lines.iter().zip(&open);
        let is_behind = lines.all(|(line, open)| !open || !leads(line));
        let lines = body.lines.iter().zip(&open);
        let lines = lines.filter(|(_, open)| !**open).map(|(line, _)| line.at());
        is_behind.then(|| (flag, lines.collect()))
    };
    asked.into_iter().filter_map(guarded).collect()
}

/// True if nothing writes to a flag but the function behind it and what it guards, and these set it.
fn is_set_there(
    c: &Comparison<'_>,
    flag: EntityId,
    behind: EntityId,
    guarded: &BTreeSet<LinkAddr>,
) -> bool {
    let entity = c.base.entity(flag);
    let bytes = c.base.bytes(entity.addr, entity.size);
    let is_zero = bytes.is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0));
    let users = c.base_usage.uses.get(&flag).into_iter().flatten();
    let users: BTreeSet<EntityId> = users.map(|one| one.by).collect();
    if !is_zero
        || entity.size > 8
        || users.len() > MOST
        || c.base_usage.pointed.contains_key(&flag)
        || entity.names.iter().any(|symbol| symbol.exported)
    {
        return false;
    }
    let mut is_set = false;
    for by in users {
        let own = c.base_cold.whole(by) == behind;
        for line in decode(c.base, c.base.entity(by)).unwrap_or_default() {
            match access(c.base, &line, flag) {
                Access::None | Access::Reads => {}
                Access::Sets if own || guarded.contains(&line.at()) => is_set = true,
                Access::Sets | Access::Other => return false,
            }
        }
    }
    is_set
}

/// What an instruction does with a variable.
enum Access {
    None,
    Reads,
    /// It puts a number there that is not zero.
    Sets,
    Other,
}

fn access(image: &Image, line: &Line, variable: EntityId) -> Access {
    let refers = |at| matches!(image.place(at), Place::In(id, _) if id == variable);
    let mut references = line.references();
    if !references.any(|reference| refers(reference.target)) {
        return Access::None;
    }
    let i = &line.instruction;
    if line.immediate.is_some() || i.mnemonic() == Mnemonic::Lea {
        return Access::Other;
    }
    let mut info = InstructionInfoFactory::new();
    let mut memory = info.info(i).used_memory().iter();
    if memory.all(|used| matches!(used.access(), OpAccess::Read | OpAccess::CondRead)) {
        return Access::Reads;
    }
    let sets = i.mnemonic() == Mnemonic::Mov && is_immediate(i.op1_kind()) && i.immediate(1) != 0;
    if sets { Access::Sets } else { Access::Other }
}

/// The branches that ask whether a variable is zero: by their number the variable, and the number of the
/// instruction where they lead if it is.
fn tests(image: &Image, body: &Body<'_>) -> BTreeMap<usize, (EntityId, usize)> {
    let mut found = BTreeMap::new();
    for at in 0..body.lines.len() {
        let Some((flag, behind)) = asks(image, &body.lines[at..]) else {
            continue;
        };
        let lines = body.lines.iter().enumerate().skip(at + behind).take(NEAR);
        let mut branches = lines
            .filter(|(_, line)| !matches!(line.instruction.condition_code(), ConditionCode::None));
        let Some((branch, line)) = branches.next() else {
            continue;
        };
        let zero = match line.instruction.condition_code() {
            ConditionCode::e => body.jump_of(branch),
            ConditionCode::ne => Some(branch + 1),
            _ => None,
        };
        if let Some(zero) = zero {
            found.insert(branch, (flag, zero));
        }
    }
    found
}

/// The variable that the first of some instructions holds against zero, or reads for the next one to; and where
/// the flags are set.
fn asks(image: &Image, lines: &[Line]) -> Option<(EntityId, usize)> {
    let line = lines.first()?;
    let i = &line.instruction;
    let reference = line.address?;
    let Place::In(id, 0) = image.place(reference.target) else {
        return None;
    };
    if !is_variable(image, id) {
        return None;
    }
    match i.mnemonic() {
        Mnemonic::Cmp if is_immediate(i.op1_kind()) && i.immediate(1) == 0 => Some((id, 1)),
        Mnemonic::Mov | Mnemonic::Movzx if i.op0_kind() == OpKind::Register => {
            let register = i.op0_register().full_register();
            let next = lines.iter().take(NEAR).skip(1).position(|line| {
                let i = &line.instruction;
                i.mnemonic() == Mnemonic::Test
                    && i.op0_kind() == OpKind::Register
                    && i.op1_kind() == OpKind::Register
                    && i.op0_register() == i.op1_register()
                    && i.op0_register().full_register() == register
            })?;
            Some((id, next + 2))
        }
        _ => None,
    }
}
