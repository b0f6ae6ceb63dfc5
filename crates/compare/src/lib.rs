//! What changed between two linked images, and may it be patched live?
//!
//! The two images are matched by symbol ([`Pairs`]), then every function and
//! object is compared by meaning: a reference is resolved to what it refers to,
//! so a function that only moved is equal and one whose string changed is not.
//! Comparing bytes with displacements masked is the tempting wrong way: it
//! calls two functions equal that read different fields of a structure that grew.

mod code;
mod constants;
mod data;
mod difference;
mod hot;
mod layouts;
mod matching;
mod meaning;
mod rules;
mod usage;

pub use constants::{Extent, TableEntry, extent, is_relative_table, jump_table};
pub use difference::{Difference, Reason, ReasonKind};
pub use hot::{Hot, Parts};
pub use matching::Pairs;
pub use rules::{Finding, Rule, Severity};
pub use usage::{Usage, Use};

use invivo_image::{EntityId, Image, TypeLayouts};

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
    /// Layouts of types and prototypes of functions in the base, from its debug data.
    pub base_types: Option<TypeLayouts>,
    /// The same of the fixed image.
    pub fixed_types: Option<TypeLayouts>,
    /// Functions to replace, by name, each with its reasons.
    pub hot: Vec<Hot>,
    /// Functions that only the fixed image has.
    pub added: Vec<EntityId>,
    /// Functions that only the base has.
    pub removed: Vec<EntityId>,
    /// What stands in the way, and what a person should know.
    pub findings: Vec<Finding>,
}

impl<'a> Comparison<'a> {
    /// Compares two images.
    #[must_use]
    pub fn new(base: &'a Image, fixed: &'a Image) -> Self {
        let (base_usage, fixed_usage) = rayon::join(|| Usage::of(base), || Usage::of(fixed));
        let (base_types, fixed_types) = rayon::join(|| types(base), || types(fixed));
        let pairs = Pairs::of(base, fixed, &base_usage, &fixed_usage);
        let mut comparison = Comparison {
            base,
            fixed,
            base_usage,
            fixed_usage,
            pairs,
            base_types,
            fixed_types,
            hot: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            findings: Vec::new(),
        };
        let (hot, added, removed) = hot::find(&comparison);
        (comparison.hot, comparison.added, comparison.removed) = (hot, added, removed);
        comparison.findings = rules::find(&comparison);
        comparison
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

/// Broken debug data are as good as none: what they would have shown is not known.
fn types(image: &Image) -> Option<TypeLayouts> {
    image.type_layouts().ok().flatten()
}
