//! Empty texts that a function hands on, whatever lies behind them.
//!
//! A pointer to a single NUL may be the empty text, or a table that is counted from one (see
//! `Image::just_before`), or the start of bytes that only begin with a NUL. So what is behind it
//! counts, although that is mostly the text of somebody else, which the linker put there. It does
//! not count where both is ruled out: nothing is counted from a pointer that a call gets as it is,
//! since no source may hold a pointer to before an object, and bytes end where what somebody else
//! refers to begins.

use std::collections::BTreeSet;

use iced_x86::{
    FlowControl, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, Register,
    UsedRegister,
};
use invivo_image::{LinkAddr, Place};

use super::Body;
use crate::conventions::PARAMETERS;

/// How many instructions are looked at before it is given up.
const LOOK_AHEAD: usize = 256;

impl Body<'_> {
    /// True if line `index` of `part` loads the address of an empty text at `at`, of which this
    /// function makes nothing but an argument of calls.
    pub(crate) fn hands_on_empty(&self, part: usize, index: usize, at: LinkAddr) -> bool {
        let line = &self.lines[part][index].instruction;
        let alone = || {
            let next = at.checked_add(1);
            next.is_some() && self.usage.next_boundary(at) == next
        };
        line.mnemonic() == Mnemonic::Lea
            && PARAMETERS.contains(&line.op0_register())
            && matches!(self.image.place(at), Place::Constant(_))
            && self.image.bytes(at, 1) == Some(&[0])
            && alone()
            && self.only_hands_on(part, index + 1, line.op0_register())
    }

    /// True if from line `index` of `part` on a register is read by nothing before something else
    /// is written to it, and some call may find its argument there.
    fn only_hands_on(&self, part: usize, index: usize, register: Register) -> bool {
        let mut known = InstructionInfoFactory::new();
        let (mut waiting, mut seen) = (vec![(part, index)], BTreeSet::new());
        let mut handed = false;
        while let Some((part, index)) = waiting.pop() {
            let Some(line) = self.lines[part].get(index) else {
                return false;
            };
            if !seen.insert((part, index)) {
                continue;
            }
            if seen.len() > LOOK_AHEAD {
                return false;
            }
            let instruction = &line.instruction;
            let used = known.info_options(instruction, InstructionInfoOptions::NO_MEMORY_USAGE);
            let uses = used.used_registers().iter();
            let uses: Vec<_> = uses
                .filter(|used| used.register().full_register() == register)
                .collect();
            let overwrites = |used: &&UsedRegister| {
                used.access() == OpAccess::Write && used.register().size() >= 4
            };
            if !uses.iter().all(overwrites) {
                return false;
            }
            if !uses.is_empty() {
                continue;
            }
            let next = (part, index + 1);
            let target = || self.index(LinkAddr(instruction.near_branch_target()));
            match instruction.flow_control() {
                FlowControl::Next => waiting.push(next),
                // What it leaves in registers may be used behind it: compilers know of some
                // functions which they keep.
                FlowControl::Call | FlowControl::IndirectCall => {
                    handed = true;
                    waiting.push(next);
                }
                FlowControl::ConditionalBranch => {
                    waiting.push(next);
                    match target() {
                        Some(place) => waiting.push(place),
                        None => return false,
                    }
                }
                FlowControl::UnconditionalBranch => match target() {
                    Some(place) => waiting.push(place),
                    // A call in the last place.
                    None => handed = true,
                },
                FlowControl::Return => {}
                _ => return false,
            }
        }
        handed
    }
}
