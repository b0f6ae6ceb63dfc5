//! R-LAYOUT: types that live data have keep their layout; R-STACK: functions that do
//! not return.

use iced_x86::FlowControl;
use invivo_image::x86_64::{Line, ReferenceKind, decode};
use invivo_image::{TypeLayout, demangle};

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(crate) fn types(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let (Some(base), Some(fixed)) = (&c.base_types, &c.fixed_types) else {
        for (which, types) in [("base", &c.base_types), ("fixed", &c.fixed_types)] {
            if types.is_none() && !c.hot.is_empty() {
                findings.push(Finding::refuse(
                    Rule::Layout,
                    which,
                    format!(
                        "the {which} image has no debug data, so it is not known whether live \
                         data keep their layout; build with -g, or give its debug file"
                    ),
                ));
            }
        }
        return;
    };
    for (name, before) in &base.types {
        let Some(after) = fixed.types.get(name).filter(|after| *after != before) else {
            continue;
        };
        let change = before
            .difference(after)
            .next()
            .zip(after.difference(before).next());
        let how = change.map_or_else(
            || "it has other layouts in other files".to_owned(),
            |(old, new)| first_change(old, new),
        );
        findings.push(Finding::refuse(
            Rule::Layout,
            name.as_str(),
            format!("changed its layout: {how}; live data of this type are laid out as before"),
        ));
    }
}

/// The first part in which two layouts differ.
fn first_change(old: &TypeLayout, new: &TypeLayout) -> String {
    let parts =
        |layout: &TypeLayout| -> Vec<String> { layout.0.split("; ").map(str::to_owned).collect() };
    let (old, new) = (parts(old), parts(new));
    // The first part is the size, which follows from the others.
    let differ = (1..old.len().max(new.len())).find(|index| old.get(*index) != new.get(*index));
    let show = |parts: &[String], index: usize| {
        parts
            .get(index)
            .cloned()
            .unwrap_or_else(|| "nothing".to_owned())
    };
    let index = differ.unwrap_or(0);
    format!("{} became {}", show(&old, index), show(&new, index))
}

/// A function that is entered once and stays: its frame runs old code for good.
pub(crate) fn stays(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for hot in &c.hot {
        let entity = c.base.entity(hot.base.main);
        let lines = decode(c.base, entity).unwrap_or_default();
        let leaves = |line: &Line| {
            let flow = line.instruction.flow_control();
            let outside = |at| at < entity.addr || at >= entity.end();
            flow == FlowControl::Return
                || (flow == FlowControl::UnconditionalBranch
                    && line.references().any(|r| outside(r.target)))
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
