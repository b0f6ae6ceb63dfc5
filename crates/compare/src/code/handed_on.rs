//! Empty texts that a function hands on, whatever lies behind them.
//!
//! A pointer to a single NUL may be the empty text, or a table that is counted from one (see
//! `Image::just_before`), or the start of bytes that only begin with a NUL. So what is behind it
//! counts, although that is mostly the text of somebody else, which the linker put there. It does
//! not count where both is ruled out: nothing is counted from a pointer that a call gets as it is,
//! since no source may hold a pointer to before an object, and bytes end where what somebody else
//! refers to begins, or the padding before that.

use std::collections::BTreeSet;

use iced_x86::{
    ConditionCode, FlowControl, Instruction, InstructionInfoFactory, InstructionInfoOptions,
    Mnemonic, OpAccess, OpKind, Register, UsedRegister,
};
use invivo_image::{LinkAddr, Place};

use super::Body;
use crate::conventions::{KEPT, PARAMETERS};

/// How many instructions are looked at before it is given up.
const LOOK_AHEAD: usize = 256;

/// Where an address is at some place of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    /// One bit for each register.
    registers: u16,
    /// It was pushed: an argument, or what a `pop` may get back.
    pushed: bool,
}

impl Held {
    fn bit(register: Register) -> u16 {
        match register.full_register() {
            full if full.is_gpr64() => 1 << full.number(),
            _ => 0,
        }
    }

    fn has(self, register: Register) -> bool {
        self.registers & Held::bit(register) != 0
    }

    /// True where a call that comes now may find it.
    fn is_argument(self) -> bool {
        self.pushed || PARAMETERS.iter().any(|register| self.has(*register))
    }

    /// True where it outlasts a call, also one that an exception ends.
    fn is_kept(self) -> bool {
        KEPT.iter().any(|register| self.has(*register))
    }

    fn with(self, register: Register) -> Held {
        let registers = self.registers | Held::bit(register);
        Held { registers, ..self }
    }

    fn without(self, register: Register) -> Held {
        let registers = self.registers & !Held::bit(register);
        Held { registers, ..self }
    }
}

impl Body<'_> {
    /// True if line `index` of `part` loads the address of an empty text at `at`, of which this
    /// function makes nothing but an argument of calls.
    pub(crate) fn hands_on_empty(&self, part: usize, index: usize, at: LinkAddr) -> bool {
        matches!(self.image.place(at), Place::Constant(_))
            && self.image.bytes(at, 1) == Some(&[0])
            && self.is_alone(at)
            && self.only_hands_on(part, index) == Some(true)
    }

    /// True if nothing but padding follows the byte at `at`, up to what somebody refers to.
    fn is_alone(&self, at: LinkAddr) -> bool {
        const LARGEST_ALIGNMENT: u64 = 64;
        let next = self.usage.next_boundary(at);
        let section = self.image.section_at(at).map(|section| section.range.end);
        let room = next
            .zip(section)
            .and_then(|(next, end)| next.min(end).checked_sub(at));
        room.is_some_and(|room| {
            let bytes = self.image.bytes(at, room).unwrap_or_default();
            let filled = self.image.slots.range(at..LinkAddr(at.0 + room)).next();
            (1..=LARGEST_ALIGNMENT).contains(&room)
                && bytes.len() as u64 == room
                && bytes[1..].iter().all(|byte| *byte == 0)
                && filled.is_none()
        })
    }

    /// Whether some call may get the address that line `index` of `part` loads; `None` where something
    /// else may be made of it: it is read through, counted from, or kept.
    fn only_hands_on(&self, part: usize, index: usize) -> Option<bool> {
        let line = &self.lines[part][index].instruction;
        let none = Held {
            registers: 0,
            pushed: false,
        };
        let register = line.op0_register();
        let loads = line.mnemonic() == Mnemonic::Lea && register.is_gpr64();
        loads.then_some(())?;
        let mut handed = false;
        let mut waiting = vec![(part, index + 1, none.with(register))];
        let mut seen = BTreeSet::new();
        while let Some((part, index, held)) = waiting.pop() {
            if held == none || !seen.insert((part, index, held)) {
                continue;
            }
            if seen.len() > LOOK_AHEAD {
                return None;
            }
            let Some(line) = self.lines[part].get(index) else {
                // A call in the last place does not return.
                let last = index.checked_sub(1).map(|last| &self.lines[part][last]);
                last.filter(|line| line.is_call())?;
                continue;
            };
            let instruction = &line.instruction;
            let held = step(instruction, held)?;
            let next = (part, index + 1, held);
            let target = || self.index(LinkAddr(instruction.near_branch_target()));
            match instruction.flow_control() {
                FlowControl::Next => waiting.push(next),
                // What it leaves in registers may be used behind it: compilers know of some
                // functions which they keep.
                FlowControl::Call | FlowControl::IndirectCall => {
                    handed |= held.is_argument();
                    (!held.is_kept()).then_some(())?;
                    waiting.push(next);
                }
                FlowControl::ConditionalBranch => {
                    waiting.push(next);
                    let (part, index) = target()?;
                    waiting.push((part, index, held));
                }
                FlowControl::UnconditionalBranch => match target() {
                    Some((part, index)) => waiting.push((part, index, held)),
                    // A call in the last place.
                    None => handed |= held.is_argument(),
                },
                // Registers that callers keep hold theirs again.
                FlowControl::Return | FlowControl::Exception => {}
                _ => return None,
            }
        }
        Some(handed)
    }
}

/// Where the address is behind an instruction that leaves it as it is; `None` behind all others.
fn step(i: &Instruction, held: Held) -> Option<Held> {
    let register = |op: u32| {
        let is = i.op_count() > op && i.op_kind(op) == OpKind::Register;
        is.then(|| i.op_register(op))
            .filter(|register| register.is_gpr64())
    };
    let is_held = |register: Option<Register>| register.is_some_and(|one| held.has(one));
    let (to, from) = (register(0), register(1));
    match (i.mnemonic(), to) {
        (Mnemonic::Push, Some(_)) if is_held(to) => {
            return Some(Held {
                pushed: true,
                ..held
            });
        }
        // What is taken back may be what was pushed.
        (Mnemonic::Pop, Some(to)) if held.pushed => return Some(held.with(to)),
        (Mnemonic::Mov, Some(to)) if is_held(from) => return Some(held.with(to)),
        // It is what it was, or the other.
        (_, Some(to)) if is_cmov(i) && from.is_some() && (is_held(from) || held.has(to)) => {
            return Some(if is_held(from) { held.with(to) } else { held });
        }
        _ => {}
    }
    let reads = (0..i.op_count()).any(|op| i.op_kind(op) == OpKind::Memory);
    if held.pushed && reads && i.memory_base() == Register::RSP && i.mnemonic() != Mnemonic::Lea {
        return None;
    }
    let mut known = InstructionInfoFactory::new();
    let used = known.info_options(i, InstructionInfoOptions::NO_MEMORY_USAGE);
    let mut uses = used
        .used_registers()
        .iter()
        .filter(|used| held.has(used.register()));
    let overwrites =
        |used: &UsedRegister| used.access() == OpAccess::Write && used.register().size() >= 4;
    uses.try_fold(held, |left, used| {
        overwrites(used).then(|| left.without(used.register()))
    })
}

/// Of instructions with two registers only these depend on a condition.
fn is_cmov(i: &Instruction) -> bool {
    i.condition_code() != ConditionCode::None
}
