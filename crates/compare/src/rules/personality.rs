//! R-PERSONALITY: exceptions pass through new code by a routine that the process has.

use std::collections::{BTreeMap, BTreeSet};

use invivo_image::{EntityId, Image};

use crate::Comparison;
use crate::describe::describe;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    unknown(c, findings);
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

/// Routines of Windows images whose tables nobody compared: they may say something else in the fixed
/// image, while the code is the same.
fn unknown(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let mut routines: BTreeMap<String, usize> = BTreeMap::new();
    for (base, fixed) in c.pairs.iter() {
        let of = |image: &Image, id| {
            let entity = image.entity(id);
            let all = image.handling_in(&(entity.addr..entity.end()));
            let unknown = all.iter().filter(|one| one.words(image).is_none());
            let names = unknown.map(|one| {
                let name = one.routine_name(image).map(str::to_owned);
                name.unwrap_or_else(|| one.routine(image).to_string())
            });
            names.collect::<BTreeSet<_>>()
        };
        let names = of(c.base, base);
        if names.is_empty() {
            continue;
        }
        for name in names.intersection(&of(c.fixed, fixed)) {
            *routines.entry(name.clone()).or_default() += 1;
        }
    }
    for (routine, functions) in routines {
        let remedy = match routine.contains("FrameHandler4") || routine.contains("_EH4") {
            true => "; compile both builds with /d2FH4-, so that __CxxFrameHandler3 does it",
            false => "",
        };
        findings.push(Finding::refuse(
            Rule::Personality,
            &routine,
            format!(
                "handles exceptions in {functions} functions of both builds, and what its tables say is \
                 not known: it may differ where the code does not{remedy}"
            ),
        ));
    }
}

fn personality(image: &Image, function: EntityId) -> Option<String> {
    let fde = image.unwind.fde_at(image.entity(function).addr)?;
    let (at, _) = image.unwind.cies.get(fde.cie)?.personality?;
    Some(describe(image, at))
}
