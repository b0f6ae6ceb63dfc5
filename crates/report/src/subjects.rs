//! The functions of the report: those to replace, and those that only the fixed build has.

use std::collections::{BTreeMap, HashMap};

use invivo_compare::{Comparison, Parts, ReasonKind};
use invivo_image::x86_64::{ReferenceKind, decode};
use invivo_image::{EntityId, demangle};

use crate::graph::Tie;
use crate::names::{Names, Side, visible};

/// A function of the report.
pub(crate) struct Subject {
    pub(crate) name: String,
    /// It in the base; none if it is new.
    pub(crate) base: Option<Parts>,
    /// It in the fixed build.
    pub(crate) fixed: Parts,
    pub(crate) reasons: Vec<String>,
    /// Its most telling reason.
    pub(crate) sort: Sort,
}

/// All of them, in the order of the report.
pub(crate) fn subjects(c: &Comparison<'_>) -> Vec<Subject> {
    let hot = c.hot.iter().map(|hot| Subject {
        name: visible(&hot.name),
        base: Some(hot.base.clone()),
        fixed: hot.fixed.clone(),
        reasons: hot.reasons.iter().map(|r| visible(&r.text)).collect(),
        sort: Sort::Differs(
            hot.reasons
                .iter()
                .map(|r| r.kind)
                .min()
                .unwrap_or(ReasonKind::Code),
        ),
    });
    let added = c.added.iter().map(|id| Subject {
        name: visible(&demangle(c.fixed.entity(*id).name())),
        base: None,
        fixed: c.fixed_parts(*id),
        reasons: vec!["only the fixed build has it".to_owned()],
        sort: Sort::New,
    });
    let mut subjects: Vec<Subject> = hot.chain(added).collect();
    subjects.sort_by(|a, b| (a.sort, &a.name).cmp(&(b.sort, &b.name)));
    subjects
}

/// What made a function differ, most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    /// It was there before.
    Differs(ReasonKind),
    /// Only the fixed build has it.
    New,
}

impl Sort {
    /// For a person.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Sort::New => "new",
            Sort::Differs(kind) => match kind {
                ReasonKind::Signature => "signature",
                ReasonKind::Source => "source",
                ReasonKind::Inlined => "inlined",
                ReasonKind::Callee => "callee",
                ReasonKind::Clone => "clone",
                ReasonKind::Code => "code",
                ReasonKind::Reference => "reference",
                ReasonKind::Constant => "constant",
                ReasonKind::Doubt => "doubt",
                ReasonKind::Numbers => "numbers",
                ReasonKind::Lines => "lines",
                ReasonKind::Compiler => "compiler",
            },
        }
    }

    /// How it is drawn: its own change, or one that came from elsewhere.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Sort::New => "new",
            Sort::Differs(ReasonKind::Signature | ReasonKind::Source | ReasonKind::Code) => "own",
            Sort::Differs(_) => "follows",
        }
    }
}

/// Numbers of the reported functions by their entities, cold parts included.
pub(crate) fn numbers(subjects: &[Subject], side: Side) -> HashMap<EntityId, usize> {
    let mut numbers = HashMap::new();
    for (number, subject) in subjects.iter().enumerate() {
        let parts = match side {
            Side::Base => subject.base.as_ref(),
            Side::Fixed => Some(&subject.fixed),
        };
        numbers.extend(
            parts
                .into_iter()
                .flat_map(Parts::ids)
                .map(|id| (id, number)),
        );
    }
    numbers
}

/// Which functions refer to which.
pub(crate) fn ties(
    subjects: &[Subject],
    base: &Names<'_>,
    fixed: &Names<'_>,
) -> BTreeMap<(usize, usize), Tie> {
    let mut ties = BTreeMap::new();
    for (function, subject) in subjects.iter().enumerate() {
        let base = subject.base.iter().map(|parts| (base, parts));
        for (names, parts) in base.chain([(fixed, &subject.fixed)]) {
            let image = names.image();
            let lines = parts
                .ids()
                .filter_map(|id| decode(image, image.entity(id)))
                .flatten();
            for reference in lines.flat_map(|line| line.references().collect::<Vec<_>>()) {
                let Some(other) = names.reported(reference.target) else {
                    continue;
                };
                let tie = match reference.kind {
                    ReferenceKind::Call | ReferenceKind::Jump => Tie::Calls,
                    ReferenceKind::Relative | ReferenceKind::Absolute => Tie::Names,
                };
                let known = ties.entry((function, other)).or_insert(tie);
                *known = (*known).min(tie);
            }
        }
    }
    ties.retain(|(from, to), _| from != to);
    ties
}
