//! R-BUILD: two builds that differ in more than the fix.

use std::collections::BTreeSet;

use invivo_image::{EntityKind, UnitFacts};

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    if c.base.machine != c.fixed.machine {
        let names = [c.base, c.fixed].map(|image| image.machine.name());
        findings.push(Finding::refuse(
            Rule::Build,
            "the machine",
            format!(
                "the base is for {}, the fixed build for {}",
                names[0], names[1]
            ),
        ));
    }
    scale(c, findings);
    let (Ok(base), Ok(fixed)) = (&c.base_source, &c.fixed_source) else {
        return;
    };
    let mut compare = |subject: &str, of: fn(&UnitFacts) -> &str| {
        let all = |facts: &[UnitFacts]| -> BTreeSet<String> {
            facts.iter().map(|unit| of(unit).to_owned()).collect()
        };
        let (before, after) = (all(&base.compiled), all(&fixed.compiled));
        let only_new: Vec<&String> = after.difference(&before).collect();
        let only_old: Vec<&String> = before.difference(&after).collect();
        if let ([old, ..], [new, ..]) = (&only_old[..], &only_new[..]) {
            findings.push(Finding::note(
                Rule::Build,
                subject,
                format!("differ between the two builds: {}", words(old, new)),
            ));
        }
    };
    compare("compiler and flags", |unit| &unit.producer);
    compare("folders of the sources", |unit| &unit.folder);
}

/// The words in which two texts differ.
fn words(old: &str, new: &str) -> String {
    let only = |text: &str, other: &str| {
        let other: BTreeSet<&str> = other.split_whitespace().collect();
        let words = text.split_whitespace().filter(|word| !other.contains(word));
        let words = words.collect::<Vec<_>>().join(" ");
        if words.is_empty() {
            "nothing".to_owned()
        } else {
            words
        }
    };
    format!(
        "the base has {}, the fixed one {}",
        only(old, new),
        only(new, old)
    )
}

/// A hot set that is far too large has another cause than the fix.
fn scale(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let functions = c
        .base
        .entities
        .iter()
        .filter(|e| e.kind == EntityKind::Function)
        .count();
    if c.hot.len() > 50 && c.hot.len() * 3 > functions {
        findings.push(Finding::note(
            Rule::Build,
            format!("{} of {functions} functions", c.hot.len()),
            "differ, which no fix does: compare the compiler, its flags and the source \
             paths of the two builds",
        ));
    }
}
