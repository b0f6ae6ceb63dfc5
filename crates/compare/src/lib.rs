//! What changed between two linked images, and may it be patched live?
//!
//! The two images are matched by symbol ([`Pairs`]), then every function and
//! object is compared by meaning: a reference is resolved to what it refers to,
//! so a function that only moved is equal and one whose string changed is not.
//! Comparing bytes with displacements masked is the tempting wrong way: it
//! calls two functions equal that read different fields of a structure that grew.

mod annexes;
mod clones;
mod code;
mod constants;
mod conventions;
mod copies;
mod data;
mod describe;
mod difference;
mod doubtful;
mod families;
mod hot;
mod labels;
mod lengths;
mod line_numbers;
mod lists;
mod matching;
mod meaning;
mod neighbours;
mod numbered;
mod originals;
mod outline;
mod phases;
mod places;
mod reasons;
mod records;
mod relaxed;
mod renumbered;
mod rules;
mod runs;
mod scan;
mod source;
mod tables;
mod told;
mod touched;
mod twins;
mod unowned;
mod untyped;
mod unwinding;
mod usage;

pub use constants::{Extent, TableEntry, extent, is_relative_table, jump_table};
pub use copies::is_anonymous;
pub use difference::{Difference, Differing, Reason, ReasonKind};
pub use hot::{Hot, Parts};
pub use labels::labelled;
pub use lists::Lists;
pub use matching::Pairs;
pub use meaning::{Meaning, Referred};
pub use neighbours::{Ahead, ahead};
pub use phases::{Clock, Phase, Phases};
pub use rules::{About, Finding, Judgement, NotJudged, Rule, Severity};
pub use source::Source;
pub use usage::{Usage, Use, references_to};

use std::collections::BTreeSet;

use hot::ColdParts;
use invivo_image::{EntityId, Image, UsedTypes};
use records::MovedRecords;
use untyped::Untyped;

/// What is compared, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Functions in which only line numbers differ are replaced, too.
    pub keep_line_changes: bool,
    /// Where somebody wants to know what the phases cost.
    pub clock: Option<Clock>,
}

/// Everything that is known about the way from the base to the fixed image.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The image that runs.
    pub base: &'a Image,
    /// The ordinary build that has the fix.
    pub fixed: &'a Image,
    /// Who refers to what in the base.
    pub base_usage: Usage,
    /// Who refers to what in the fixed image.
    pub fixed_usage: Usage,
    /// Which entity of one is which of the other.
    pub pairs: Pairs,
    /// What the base's debug data say; a text where there are none.
    pub base_source: Result<Source, String>,
    /// The same of the fixed image.
    pub fixed_source: Result<Source, String>,
    /// Functions to replace, by name, each with its reasons.
    pub hot: Vec<Hot>,
    /// Functions in which nothing but line numbers differs: the old ones stay.
    pub left_out: Vec<Hot>,
    /// Functions that only the fixed image has.
    pub added: Vec<EntityId>,
    /// Functions that only the base has.
    pub removed: Vec<EntityId>,
    /// What stands in the way, and what a person should know.
    pub findings: Vec<Finding>,
    /// What a person has judged to do no harm.
    pub judgements: Vec<Judgement>,
    /// How long all this took.
    pub phases: Phases,
    moved_records: MovedRecords,
    tables_in_doubt: doubtful::Tables,
    untyped: Vec<Untyped>,
    /// Variables that new code refers to, in the base and in the fixed image.
    held: Vec<(EntityId, EntityId)>,
    base_cold: ColdParts,
    fixed_cold: ColdParts,
}

impl<'a> Comparison<'a> {
    /// Compares two images.
    #[must_use]
    pub fn new(base: &'a Image, fixed: &'a Image) -> Self {
        Comparison::with(base, fixed, Options::default())
    }

    /// Compares two images as `options` say.
    #[must_use]
    pub fn with(base: &'a Image, fixed: &'a Image, options: Options) -> Self {
        let mut phases = Phases::start(options.clock);
        let (base_usage, fixed_usage) = Usage::of_both(base, fixed);
        phases.end("index");
        let pairs = Pairs::of(base, fixed, &base_usage, &fixed_usage);
        let mut comparison = Comparison {
            base,
            fixed,
            base_usage,
            fixed_usage,
            pairs,
            base_source: Err(String::new()),
            fixed_source: Err(String::new()),
            hot: Vec::new(),
            left_out: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            findings: Vec::new(),
            judgements: Vec::new(),
            phases,
            moved_records: MovedRecords::new(),
            tables_in_doubt: doubtful::Tables::default(),
            untyped: Vec::new(),
            held: Vec::new(),
            base_cold: ColdParts::of(base),
            fixed_cold: ColdParts::of(fixed),
        };
        let copies = copies::pairs(&comparison);
        comparison.pairs.add(copies);
        let usages = (&comparison.base_usage, &comparison.fixed_usage);
        comparison.pairs.finish((base, fixed), usages);
        comparison.phases.end("match");
        comparison.find_hot(options);
        comparison
    }

    fn find_hot(&mut self, options: Options) {
        let sections = rayon::join(
            || source::sections(self.base),
            || source::sections(self.fixed),
        );
        let (base, fixed) = rayon::join(|| source::open(&sections.0), || source::open(&sections.1));
        self.phases.end("open debug data");
        let known = (base.as_ref().ok(), fixed.as_ref().ok());
        self.moved_records = records::find(self, known.0, known.1);
        self.phases.end("records");
        let differing = hot::differing(self);
        // The comparison of functions is over, and large programs need the room.
        self.base_usage.outlines = Default::default();
        self.fixed_usage.outlines = Default::default();
        self.phases.end("compare");
        let found = hot::find(self, differing, known.0, known.1, options.keep_line_changes);
        self.untyped = untyped::find(self, &found, known.0, known.1);
        self.phases.end("explain");
        let new: Vec<_> = match known.1 {
            Some(debug) => source::functions_at(self.fixed, debug, &found.added),
            None => Vec::new(),
        };
        self.held = source::variables(self, &found);
        let (base_held, fixed_held): (Vec<_>, Vec<_>) = self.held.iter().copied().unzip();
        let (in_base, mut in_fixed) = source::functions(&found.hot);
        in_fixed.extend(new.iter().map(|(id, function)| (*id, function)));
        let source = rayon::join(
            || {
                Ok(Source::of(
                    self.base,
                    &self.base_usage,
                    base.as_ref()?,
                    &in_base,
                    &base_held,
                ))
            },
            || {
                Ok(Source::of(
                    self.fixed,
                    &self.fixed_usage,
                    fixed.as_ref()?,
                    &in_fixed,
                    &fixed_held,
                ))
            },
        );
        let (mut base_source, fixed_source): (Result<Source, &String>, Result<Source, &String>) =
            source;
        if let (Ok(before), Ok(after), Ok(debug)) = (&mut base_source, &fixed_source, &base) {
            // A type that only the new code gets at may have live data all the same.
            let is_new = |name: &&String| before.layouts(name).is_none();
            let names: BTreeSet<&str> = after
                .types
                .keys()
                .chain(after.beside.keys())
                .filter(is_new)
                .map(String::as_str)
                .collect();
            let elsewhere: UsedTypes = debug.types_named(&names);
            before.types.extend(elsewhere);
        }
        let owned = |source: Result<Source, &String>| source.map_err(Clone::clone);
        (self.base_source, self.fixed_source) = (owned(base_source), owned(fixed_source));
        for (source, image) in [
            (&mut self.base_source, self.base),
            (&mut self.fixed_source, self.fixed),
        ] {
            if let (Err(_), Some(facts)) = (&source, &image.pdb) {
                *source = Ok(Source::of_pdb(facts));
            }
        }
        self.hot = found.hot;
        self.left_out = found.left_out;
        self.added = found.added;
        self.removed = found.removed;
        self.phases.end("types");
        self.findings = rules::find(self, known.0, known.1);
        self.phases.end("rules");
        let mut findings = std::mem::take(&mut self.findings);
        places::tell(self, base.as_ref().ok(), fixed.as_ref().ok(), &mut findings);
        self.findings = findings;
        self.phases.end("places");
    }

    /// A function of the base with its cold parts.
    #[must_use]
    pub fn base_parts(&self, main: EntityId) -> Parts {
        self.base_cold.parts(main)
    }

    /// A function of the fixed image with its cold parts.
    #[must_use]
    pub fn fixed_parts(&self, main: EntityId) -> Parts {
        self.fixed_cold.parts(main)
    }

    /// True if some finding forbids a patch.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity == Severity::Refuse)
    }

    /// True if both objects hold the same, pointers compared by what they mean.
    #[must_use]
    pub fn same_object(&self, base: EntityId, fixed: EntityId) -> bool {
        meaning::Meaning::new(self).same_object(base, fixed)
    }

    /// True if nothing that runs differs.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.hot.is_empty() && !self.is_refused()
    }
}
