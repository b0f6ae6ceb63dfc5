//! R-STACK: functions that do not return run their old body for good.

use std::collections::HashMap;

use iced_x86::FlowControl;
use invivo_image::x86_64::{Line, ReferenceKind, decode};
use invivo_image::{Entity, Flow, Image, LinkAddr, demangle};

use crate::Comparison;
use crate::rules::named::refers_to;
use crate::rules::{Finding, Rule};

/// Functions of others that end a process or a thread: a loop that ends so was not left before.
const END: &[&str] = &[
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "pthread_exit",
    "__assert_fail",
    "__stack_chk_fail",
    "__chk_fail",
    "__fortify_fail",
];
/// Functions of others that lead to another frame, or that are called when something is wrong.
const GIVE_UP: &[&str] = &[
    "abort",
    "longjmp",
    "siglongjmp",
    "__longjmp_chk",
    "__cxa_throw",
    "__cxa_rethrow",
    "_Unwind_Resume",
];
/// The text of the note for a function that stays.
const STAYS: &str = "stays on its thread's stack: what changed in its own body takes effect only when it \
                     is called again";
/// For one that stays on one of its ways, such as what a child of `fork` does.
const MAY_STAY: &str = "has a loop that is never left: on a thread or in a process that runs it, what changed \
                        in it takes effect only when it is called again";

/// Functions that are entered once and stay: their frames run old code for good.
pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for hot in &c.hot {
        let entity = c.base.entity(hot.base.main);
        let lines = decode(c.base, entity).unwrap_or_default();
        let is_main = entity.name() == "main" || hot.name.ends_with("::main");
        let body = Body {
            image: c.base,
            entity,
            lines,
        };
        let text = match body.stays() {
            Stays::Never if !is_main => continue,
            Stays::OnOneWay if !is_main => MAY_STAY,
            _ => STAYS,
        };
        findings.push(Finding::note(Rule::Stack, demangle(entity.name()), text));
    }
}

/// Whether a function stays where it is.
enum Stays {
    /// It returns, or has no loop: then it ends the program or unwinds.
    Never,
    OnOneWay,
    Always,
}

/// The instructions of a function.
struct Body<'a> {
    image: &'a Image,
    entity: &'a Entity,
    lines: Vec<Line>,
}

impl Body<'_> {
    fn stays(&self) -> Stays {
        let returns: Vec<bool> = self.lines.iter().map(|line| self.leaves(line)).collect();
        let loops = |line: &Line| self.jumps(line).any(|to| to <= line.at());
        if !returns.contains(&true) {
            let loops = self.lines.iter().any(loops);
            return if loops { Stays::Always } else { Stays::Never };
        }
        let leads_out = self.leads_out(returns);
        let mut lines = self.lines.iter().zip(leads_out);
        if lines.any(|(line, leads_out)| !leads_out && loops(line)) {
            Stays::OnOneWay
        } else {
            Stays::Never
        }
    }

    /// Of each instruction, whether a way leads from it to one that leaves.
    fn leads_out(&self, mut leads: Vec<bool>) -> Vec<bool> {
        let mut sources: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut waiting = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            if leads[at] {
                waiting.push(at);
                continue;
            }
            // A jump through a table, and whatever else tells no target, may lead out.
            let is_open = match line.word {
                Some(word) => word.flow == Flow::IndirectJump,
                None => line.instruction.flow_control() == FlowControl::IndirectBranch,
            };
            if is_open || self.jumps_out(line) || self.calls(line, GIVE_UP) {
                leads[at] = true;
                waiting.push(at);
            }
            for target in self.jumps(line).filter_map(|to| self.index(to)) {
                sources.entry(target).or_default().push(at);
            }
            if !line.ends_flow() && !self.calls(line, END) {
                sources.entry(at + 1).or_default().push(at);
            }
        }
        while let Some(at) = waiting.pop() {
            for source in sources.remove(&at).into_iter().flatten() {
                if !leads[source] {
                    leads[source] = true;
                    waiting.push(source);
                }
            }
        }
        leads
    }

    fn index(&self, at: LinkAddr) -> Option<usize> {
        self.lines.binary_search_by_key(&at, Line::at).ok()
    }

    fn is_inside(&self, at: LinkAddr) -> bool {
        (self.entity.addr..self.entity.end()).contains(&at)
    }

    /// Where a line jumps to inside the function.
    fn jumps<'l>(&self, line: &'l Line) -> impl Iterator<Item = LinkAddr> + use<'_, 'l> {
        let jumps = line.references().filter(|r| r.kind == ReferenceKind::Jump);
        jumps.map(|r| r.target).filter(|to| self.is_inside(*to))
    }

    /// True for a jump to another function or to a part of this one that lies elsewhere.
    fn jumps_out(&self, line: &Line) -> bool {
        let mut references = line.references();
        references.any(|r| r.kind == ReferenceKind::Jump && !self.is_inside(r.target))
    }

    /// True for a call of one of these functions of others.
    fn calls(&self, line: &Line, names: &[&str]) -> bool {
        line.is_call() && refers_to(self.image, line, names)
    }

    /// True if a line returns, or goes on in another function.
    fn leaves(&self, line: &Line) -> bool {
        let flow = line.instruction.flow_control();
        let (returns, jumps) = match line.word {
            Some(word) => (word.flow == Flow::Return, word.flow == Flow::Jump),
            None => (
                flow == FlowControl::Return,
                flow == FlowControl::UnconditionalBranch,
            ),
        };
        returns || jumps && line.references().any(|r| !self.is_inside(r.target))
    }
}
