//! Whether the stack is aligned where a function wants it to be.
//!
//! The psABI wants `rsp` to be a multiple of 16 before each call. gcc keeps to that only for
//! callees that need it: where it has seen that a function neither calls others nor has
//! anything aligned on its stack, callers in the same file do not care.

use std::collections::HashSet;

use invivo_image::EntityId;
use invivo_image::x86_64::demanded_alignment;

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::body::{Body, Callee};
use super::side::{Bound, DEEPEST, Side};

/// How far `rsp` is from a multiple of this is followed.
const ALIGNMENT: i64 = 16;
/// Callers that are asked whether they were called right, at most.
const MOST: usize = 256;

impl Side<'_> {
    /// True if `function` wants an aligned stack.
    pub(super) fn wants_alignment(&mut self, function: EntityId, bound: Bound) -> bool {
        self.wants_alignment_within(function, bound, DEEPEST)
    }

    fn wants_alignment_within(&mut self, function: EntityId, bound: Bound, depth: u32) -> bool {
        if let Some(known) = self.aligned[bound as usize].get(&function) {
            return *known;
        }
        let unknown = bound == Bound::Upper;
        if depth == 0 {
            return unknown;
        }
        // One that calls itself wants no more than what else it does.
        self.aligned[bound as usize].insert(function, false);
        let found = match self.body(function) {
            Some(body) => (0..body.lines.len()).any(|at| {
                is_aligned_access(&body.lines[at].instruction, bound)
                    || match body.callees[at] {
                        Some(Callee::Known(id)) => {
                            self.wants_alignment_within(id, bound, depth - 1)
                        }
                        // What the objects of a kernel refer to was compiled as they were.
                        Some(Callee::Other) => !self.image.is_of_objects(),
                        Some(Callee::Unknown) => unknown,
                        None => false,
                    }
            }),
            None => unknown,
        };
        self.aligned[bound as usize].insert(function, found);
        found
    }

    /// True if whoever calls `function` does so with an aligned stack.
    pub(super) fn is_called_aligned(&mut self, function: EntityId) -> bool {
        let mut seen = HashSet::from([function]);
        let mut waiting = vec![function];
        while let Some(called) = waiting.pop() {
            for caller in self.callers(called) {
                let Some(body) = self.body(caller) else {
                    return false;
                };
                let rests = rests(&body, self.image.entity(caller).addr.0);
                // A jump to it leaves the stack as a call would, 8 bytes further.
                let aligned = |at: usize| {
                    let wanted = if body.lines[at].is_call() { 0 } else { 8 };
                    rests[at].rsp == Some(wanted)
                };
                if !body.sites(called).all(aligned) {
                    return false;
                }
                // What wants it itself is called so.
                if !self.wants_alignment(caller, Bound::Lower) && seen.insert(caller) {
                    waiting.push(caller);
                }
            }
            if seen.len() > MOST {
                return false;
            }
        }
        true
    }
}

/// Registers of the stack, each as its distance from a multiple of 16 if the function was called
/// with an aligned stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rest {
    rsp: Option<i64>,
    rbp: Option<i64>,
}

/// What they are before each instruction.
fn rests(body: &Body, start: u64) -> Vec<Rest> {
    let mut rests: Vec<Option<Rest>> = vec![None; body.lines.len()];
    let first = (body.lines.iter()).position(|line| line.at().0 == start);
    let mut waiting: Vec<usize> = first.into_iter().collect();
    for first in &waiting {
        rests[*first] = Some(Rest {
            rsp: Some(ALIGNMENT - 8),
            rbp: None,
        });
    }
    while let Some(at) = waiting.pop() {
        let before = rests[at].unwrap_or_default();
        let after = step(&body.lines[at].instruction, before);
        for next in &body.next[at] {
            let joined = rests[*next].map_or(after, |known| Rest {
                rsp: known.rsp.filter(|rsp| after.rsp == Some(*rsp)),
                rbp: known.rbp.filter(|rbp| after.rbp == Some(*rbp)),
            });
            if rests[*next] != Some(joined) {
                rests[*next] = Some(joined);
                waiting.push(*next);
            }
        }
    }
    rests.into_iter().map(Option::unwrap_or_default).collect()
}

fn step(i: &Instruction, before: Rest) -> Rest {
    let of = |register: Register| match register {
        Register::RSP => before.rsp,
        Register::RBP => before.rbp,
        _ => None,
    };
    let moved = |from: Option<i64>, by: i64| Some((from? + by).rem_euclid(ALIGNMENT));
    let number = |at: u32| i.try_immediate(at).ok().map(u64::cast_signed);
    let mut after = before;
    let to = match i.op_count() > 0 && i.op0_kind() == OpKind::Register {
        true => i.op0_register(),
        false => Register::None,
    };
    let set = |after: &mut Rest, value: Option<i64>| match to.full_register() {
        Register::RSP => after.rsp = value,
        Register::RBP => after.rbp = value,
        _ => {}
    };
    match i.mnemonic() {
        Mnemonic::Call | Mnemonic::Cmp | Mnemonic::Test => {}
        Mnemonic::Push => after.rsp = moved(before.rsp, -8),
        Mnemonic::Pop => {
            after.rsp = moved(before.rsp, 8);
            set(&mut after, None);
        }
        Mnemonic::Leave => {
            after = Rest {
                rsp: moved(before.rbp, 8),
                rbp: None,
            };
        }
        Mnemonic::Mov if i.op1_kind() == OpKind::Register => {
            set(&mut after, of(i.op1_register()));
        }
        Mnemonic::Lea if i.memory_index() == Register::None => {
            let by = i.memory_displacement64().cast_signed();
            set(&mut after, moved(of(i.memory_base()), by));
        }
        Mnemonic::Add => set(&mut after, number(1).and_then(|by| moved(of(to), by))),
        Mnemonic::Sub => set(&mut after, number(1).and_then(|by| moved(of(to), -by))),
        Mnemonic::And if number(1).is_some_and(|mask| mask & (ALIGNMENT - 1) == 0) => {
            set(&mut after, Some(0));
        }
        _ => set(&mut after, None),
    }
    after
}

/// True for an instruction that only reads or writes what is aligned, and may do so on the stack.
fn is_aligned_access(i: &Instruction, bound: Bound) -> bool {
    let on_stack = matches!(i.memory_base(), Register::RSP | Register::RBP);
    demanded_alignment(i).is_some()
        && !i.is_ip_rel_memory_operand()
        && (on_stack || bound == Bound::Upper)
}
