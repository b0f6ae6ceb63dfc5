//! The instructions of a function with its cold parts, and where control goes from each.

use invivo_compare::{Parts, Usage};
use invivo_image::x86_64::{Line, ReferenceKind};
use invivo_image::{EntityId, EntityKind, Image, LinkAddr, Place};

use iced_x86::FlowControl;

use crate::entry::{pieces, tabled};

/// Whom a call, or a jump out of the function, leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    /// A function of the image, at its entry.
    Known(EntityId),
    /// One of another image, or one behind a pointer: it is called as the psABI says.
    Other,
    /// A place that is not understood.
    Unknown,
}

/// A function.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) lines: Vec<Line>,
    /// Where control goes on inside the function behind each instruction.
    pub(super) next: Vec<Vec<usize>>,
    /// Whom each calls or leaves the function for.
    pub(super) callees: Vec<Option<Callee>>,
}

impl Body {
    /// `None` where it is not all instructions.
    pub(super) fn of(image: &Image, usage: &Usage, parts: &Parts) -> Option<Body> {
        let pieces = pieces(image, parts)?;
        let tabled = tabled(image, usage, &pieces);
        let mut lines = pieces.concat();
        lines.sort_by_key(Line::at);
        let index = |at: LinkAddr| lines.binary_search_by_key(&at, Line::at).ok();
        let tabled: Vec<usize> = tabled.into_iter().filter_map(index).collect();
        let callee = |at: LinkAddr| match image.place(at) {
            Place::In(id, 0) if image.entity(id).kind != EntityKind::Object => Callee::Known(id),
            Place::Stub(_) => Callee::Other,
            _ => Callee::Unknown,
        };
        let mut next = vec![Vec::new(); lines.len()];
        let mut callees = vec![None; lines.len()];
        for (at, line) in lines.iter().enumerate() {
            let direct = line
                .address
                .filter(|to| matches!(to.kind, ReferenceKind::Call | ReferenceKind::Jump));
            let flow = line.instruction.flow_control();
            match (flow, direct) {
                _ if line.is_call() => {
                    callees[at] = Some(direct.map_or(Callee::Other, |to| callee(to.target)));
                }
                (FlowControl::IndirectBranch, _) => {
                    next[at].extend(&tabled);
                    callees[at] = Some(Callee::Other);
                }
                (_, Some(to)) => match index(to.target) {
                    Some(inside) => next[at].push(inside),
                    None => callees[at] = Some(callee(to.target)),
                },
                _ => {}
            }
            let follows = lines
                .get(at + 1)
                .is_some_and(|behind| behind.at() == line.end());
            if follows && !line.ends_flow() {
                next[at].push(at + 1);
            }
        }
        Some(Body {
            lines,
            next,
            callees,
        })
    }

    /// True if it may go back to its caller: by itself, or by a jump to who does.
    pub(super) fn returns(&self) -> bool {
        (self.lines.iter().zip(&self.callees)).any(|(line, callee)| {
            let flow = line.instruction.flow_control();
            flow == FlowControl::Return || callee.is_some() && !line.is_call()
        })
    }

    /// True if it jumps to a place that is not known, which may be inside.
    pub(super) fn is_open(&self) -> bool {
        self.lines.iter().zip(&self.next).any(|(line, next)| {
            let i = &line.instruction;
            i.flow_control() == FlowControl::IndirectBranch
                && !i.is_ip_rel_memory_operand()
                && next.is_empty()
        })
    }

    /// The calls of and jumps to `function`.
    pub(super) fn sites(&self, function: EntityId) -> impl Iterator<Item = usize> {
        let leads = move |at: &usize| self.callees[*at] == Some(Callee::Known(function));
        (0..self.lines.len()).filter(leads)
    }
}
