//! R-PERSONALITY: exceptions pass through new code by a routine that the process has.

use std::collections::BTreeSet;

use invivo_image::{EntityId, Image};

use crate::Comparison;
use crate::describe::describe;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let known: BTreeSet<String> = c
        .base
        .unwind
        .cies
        .iter()
        .filter_map(|cie| cie.personality)
        .map(|(at, _)| describe(c.base, at))
        .collect();
    for hot in &c.hot {
        let wanted = hot
            .fixed
            .ids()
            .filter_map(|part| personality(c.fixed, part));
        for routine in wanted.filter(|routine| !known.contains(routine)) {
            let routine = routine.trim_start_matches("DW.ref.");
            findings.push(Finding::refuse(
                Rule::Personality,
                &hot.name,
                format!(
                    "lets exceptions pass by {routine} in the fixed image, a routine that the \
                     running one does not use"
                ),
            ));
        }
    }
}

fn personality(image: &Image, function: EntityId) -> Option<String> {
    let fde = image.unwind.fde_at(image.entity(function).addr)?;
    let (at, _) = image.unwind.cies.get(fde.cie)?.personality?;
    Some(describe(image, at))
}
