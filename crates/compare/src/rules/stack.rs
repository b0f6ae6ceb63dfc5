//! R-STACK: functions that do not return run their old body for good.

use iced_x86::FlowControl;
use invivo_image::x86_64::{Line, ReferenceKind, decode};
use invivo_image::{Flow, demangle};

use crate::Comparison;
use crate::rules::{Finding, Rule};

/// A function that is entered once and stays: its frame runs old code for good.
pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for hot in &c.hot {
        let entity = c.base.entity(hot.base.main);
        let lines = decode(c.base, entity).unwrap_or_default();
        let leaves = |line: &Line| {
            let flow = line.instruction.flow_control();
            let outside = |at| at < entity.addr || at >= entity.end();
            let (returns, jumps) = match line.word {
                Some(word) => (word.flow == Flow::Return, word.flow == Flow::Jump),
                None => (
                    flow == FlowControl::Return,
                    flow == FlowControl::UnconditionalBranch,
                ),
            };
            returns || jumps && line.references().any(|r| outside(r.target))
        };
        let loops = |line: &Line| {
            line.references().any(|r| {
                r.kind == ReferenceKind::Jump && entity.addr <= r.target && r.target <= line.at()
            })
        };
        // Without a loop and without a way out, it ends the program or unwinds.
        let returns = lines.iter().any(leaves) || !lines.iter().any(loops);
        if entity.name() == "main" || hot.name.ends_with("::main") || !returns {
            findings.push(Finding::note(
                Rule::Stack,
                demangle(entity.name()),
                "stays on its thread's stack: what changed in its own body takes effect only \
                 when it is called again",
            ));
        }
    }
}
