//! What becomes of the result of a call through a pointer that nobody knows.
//!
//! `parser->memory.allocate(400)` and `server->on_error(400)` look alike up to the call. What is returned
//! tells them apart: an address is used as 64 bits, a state as 32 or not at all.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use iced_x86::{FlowControl, InstructionInfoFactory, Mnemonic, Register};
use invivo_image::x86_64::{Line, decode};
use invivo_image::{EntityKind, Image, LinkAddr, Place, whole_of};

use crate::Parts;
use crate::conventions::{PARAMETERS, changes, reads_value};

/// How many instructions behind a call are looked at; what is not seen by then may be an address.
const MOST: usize = 200;

/// What becomes of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing that could be done with an address.
    Dropped,
    /// What is done with an address, or what cannot be told.
    Kept,
    /// It may be what the caller itself returns.
    Returned,
}

/// A function with the parts of it that lie elsewhere, decoded when somebody asks for it.
pub(super) struct Whole<'a> {
    image: &'a Image,
    parts: &'a Parts,
    lines: OnceCell<Vec<Line>>,
}

impl<'a> Whole<'a> {
    pub(super) fn of(image: &'a Image, parts: &'a Parts) -> Self {
        Whole {
            image,
            parts,
            lines: OnceCell::new(),
        }
    }

    /// Its instructions in order of place.
    fn lines(&self) -> &[Line] {
        self.lines.get_or_init(|| {
            let parts = self.parts.ids().map(|part| self.image.entity(part));
            let lines = parts.filter_map(|part| decode(self.image, part));
            let mut lines: Vec<Line> = lines.flatten().collect();
            lines.sort_by_key(Line::at);
            lines
        })
    }

    /// What becomes of the result of the call, or of the jump at a function's end, that is at `at`.
    pub(super) fn fate(&self, at: LinkAddr) -> Fate {
        let lines = self.lines();
        match lines.binary_search_by_key(&at, Line::at) {
            // Who is told a place may be told there what was allocated.
            Ok(index) if hands_place(lines, index) => Fate::Kept,
            Ok(index) => fate(self.image, lines, index),
            Err(_) => Fate::Kept,
        }
    }
}

/// True if an argument of a call is a place in the frame or in a structure.
fn hands_place(lines: &[Line], call: usize) -> bool {
    let mut info = InstructionInfoFactory::new();
    let mut waiting = PARAMETERS.to_vec();
    let before = lines.iter().take(call).rev();
    let before = before.take_while(|line| !line.ends_flow() && !line.is_call());
    for line in before.take(MOST) {
        let i = &line.instruction;
        let used = info.info(i).used_registers();
        let made: Vec<Register> = used
            .iter()
            .filter(|used| changes(used))
            .map(|used| used.register().full_register())
            .collect();
        if i.mnemonic() == Mnemonic::Lea
            && line.address.is_none()
            && waiting.contains(&i.op0_register())
        {
            return true;
        }
        waiting.retain(|register| !made.contains(register));
    }
    false
}

fn fate(image: &Image, lines: &[Line], index: usize) -> Fate {
    let is_call = |line: &Line| line.instruction.flow_control() == FlowControl::IndirectCall;
    if !lines.get(index).is_some_and(is_call) {
        return Fate::Returned;
    }
    let behind = |at: usize| {
        let next = lines.get(at)?.end();
        lines
            .get(at + 1)
            .is_some_and(|line| line.at() == next)
            .then_some(at + 1)
    };
    let mut info = InstructionInfoFactory::new();
    let mut fate = Fate::Dropped;
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<usize> = behind(index).into_iter().collect();
    while let Some(at) = waiting.pop() {
        let Some(line) = lines.get(at).filter(|_| seen.insert(at)) else {
            continue;
        };
        if seen.len() > MOST {
            return Fate::Kept;
        }
        let used = info.info(&line.instruction).used_registers();
        let mut results = used
            .iter()
            .filter(|used| used.register().full_register() == Register::RAX);
        if results
            .clone()
            .any(|used| used.register() == Register::RAX && reads_value(used))
        {
            return Fate::Kept;
        }
        let is_over = results
            .any(|used| changes(used) && [Register::RAX, Register::EAX].contains(&used.register()));
        let target = LinkAddr(line.instruction.near_branch_target());
        let inside = lines.binary_search_by_key(&target, Line::at);
        let jumps = matches!(
            line.instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        );
        // A part of the function that is not known as one.
        if jumps && inside.is_err() && !is_other_function(image, target) {
            return Fate::Kept;
        }
        match line.instruction.flow_control() {
            FlowControl::Return => fate = Fate::Returned,
            FlowControl::IndirectBranch => return Fate::Kept,
            FlowControl::UnconditionalBranch => waiting.extend(inside),
            FlowControl::ConditionalBranch => waiting.extend(inside.into_iter().chain(behind(at))),
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::Exception => {}
            _ if is_over => {}
            _ => waiting.extend(behind(at)),
        }
    }
    fate
}

/// True if another function begins at `at`, so that a jump there is a call.
fn is_other_function(image: &Image, at: LinkAddr) -> bool {
    match image.place(at) {
        Place::Stub(_) => true,
        Place::In(id, 0) => {
            let entity = image.entity(id);
            entity.kind == EntityKind::Function && whole_of(entity.name()).is_none()
        }
        _ => false,
    }
}
