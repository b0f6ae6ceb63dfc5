//! What becomes of the result of a call through a pointer that nobody knows.
//!
//! `parser->memory.allocate(400)` and `server->on_error(400)` look alike up to the call. What is returned
//! tells them apart: an address is used as 64 bits, a state as 32 or not at all.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, InstructionInfoFactory, Register};
use invivo_image::x86_64::Line;
use invivo_image::{EntityKind, Image, LinkAddr, Place, whole_of};

use crate::conventions::{changes, reads_value};

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

/// What becomes of the result of the call, or of the jump at a function's end, that is at `index`.
pub(super) fn fate(image: &Image, lines: &[Line], index: usize) -> Fate {
    let is_call = |line: &Line| line.instruction.flow_control() == FlowControl::IndirectCall;
    if !lines.get(index).is_some_and(is_call) {
        return Fate::Returned;
    }
    let mut info = InstructionInfoFactory::new();
    let mut fate = Fate::Dropped;
    let mut seen = BTreeSet::new();
    let mut waiting = vec![index + 1];
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
        // What happens in the function's cold part is not seen here.
        if jumps && inside.is_err() && !is_other_function(image, target) {
            return Fate::Kept;
        }
        match line.instruction.flow_control() {
            FlowControl::Return => fate = Fate::Returned,
            FlowControl::IndirectBranch => return Fate::Kept,
            FlowControl::UnconditionalBranch => waiting.extend(inside),
            FlowControl::ConditionalBranch => waiting.extend(inside.into_iter().chain([at + 1])),
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::Exception => {}
            _ if is_over => {}
            _ => waiting.push(at + 1),
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
