//! The requirement rules: what forbids a live patch, and what a person should know.
//!
//! Each rule has a module of its own; R-BIND and R-UNWIND are found when the patch is
//! planned.

mod build;
mod initial_value;
mod layout;
mod library;
mod signature;
mod size;
mod stack;
mod start;
mod symbols;
mod thread_locals;

use invivo_image::{EntityId, EntityKind, Image, SectionKind};
use serde::{Deserialize, Serialize};

use crate::Comparison;

/// A numbered requirement.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
pub enum Rule {
    /// A constant size that is handed to an allocator stays.
    #[serde(rename = "R-ALLOC")]
    Allocation,
    /// Every reference of the patch must be bound to one place.
    #[serde(rename = "R-BIND")]
    Binding,
    /// Both images come from the same build set-up.
    #[serde(rename = "R-BUILD")]
    Build,
    /// Constants that the running image goes on reading stay.
    #[serde(rename = "R-CONST")]
    Constant,
    /// What other images may bind to stays.
    #[serde(rename = "R-EXPORT")]
    Export,
    /// Every function that is replaced has an entry that can be hooked.
    #[serde(rename = "R-HOOK")]
    Hook,
    /// What was chosen when the program was loaded stays chosen.
    #[serde(rename = "R-IFUNC")]
    Resolver,
    /// What is imported can be found in the process.
    #[serde(rename = "R-IMPORT")]
    Import,
    /// A variable that lives in the process keeps its initial value.
    #[serde(rename = "R-INIT")]
    InitialValue,
    /// Types that live data has keep their layout.
    #[serde(rename = "R-LAYOUT")]
    Layout,
    /// The same libraries are needed.
    #[serde(rename = "R-LIBRARY")]
    Library,
    /// Exceptions are handled by the same language's runtime.
    #[serde(rename = "R-PERSONALITY")]
    Personality,
    /// What the fixed image lacks is used by nothing that stays.
    #[serde(rename = "R-REMOVED")]
    Removed,
    /// Functions that unpatched code calls are called as before.
    #[serde(rename = "R-SIGNATURE")]
    Signature,
    /// A variable that lives in the process keeps its size.
    #[serde(rename = "R-SIZE")]
    Size,
    /// A function that does not return runs its old body for good.
    #[serde(rename = "R-STACK")]
    Stack,
    /// What runs at start and exit has run already, or will run as it was.
    #[serde(rename = "R-START")]
    Start,
    /// New variables live in the patch.
    #[serde(rename = "R-STATIC")]
    Static,
    /// The base's symbols must be known.
    #[serde(rename = "R-SYMBOLS")]
    Symbols,
    /// Thread-locals keep their places.
    #[serde(rename = "R-TLS")]
    ThreadLocals,
    /// Unwinding through the new code must be possible.
    #[serde(rename = "R-UNWIND")]
    Unwind,
    /// Tables of virtual functions that live objects hold keep their shape.
    #[serde(rename = "R-VTABLE")]
    VirtualTable,
}

impl Rule {
    /// Its id, such as `R-INIT`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Rule::Allocation => "R-ALLOC",
            Rule::Binding => "R-BIND",
            Rule::Build => "R-BUILD",
            Rule::Constant => "R-CONST",
            Rule::Export => "R-EXPORT",
            Rule::Hook => "R-HOOK",
            Rule::Resolver => "R-IFUNC",
            Rule::Import => "R-IMPORT",
            Rule::InitialValue => "R-INIT",
            Rule::Layout => "R-LAYOUT",
            Rule::Library => "R-LIBRARY",
            Rule::Personality => "R-PERSONALITY",
            Rule::Removed => "R-REMOVED",
            Rule::Signature => "R-SIGNATURE",
            Rule::Size => "R-SIZE",
            Rule::Stack => "R-STACK",
            Rule::Start => "R-START",
            Rule::Static => "R-STATIC",
            Rule::Symbols => "R-SYMBOLS",
            Rule::ThreadLocals => "R-TLS",
            Rule::Unwind => "R-UNWIND",
            Rule::VirtualTable => "R-VTABLE",
        }
    }
}

/// What a finding means for the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Forbids it.
    Refuse,
    /// Does not forbid it.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Finding {
    /// The requirement.
    pub rule: Rule,
    /// What it means.
    pub severity: Severity,
    /// The function, variable or type.
    pub subject: String,
    /// What was found there, and what helps.
    pub text: String,
}

impl Finding {
    /// A finding that forbids the patch.
    #[must_use]
    pub fn refuse(rule: Rule, subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding {
            rule,
            severity: Severity::Refuse,
            subject: subject.into(),
            text: text.into(),
        }
    }

    /// A finding that a person should know.
    #[must_use]
    pub fn note(rule: Rule, subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Note,
            ..Finding::refuse(rule, subject, text)
        }
    }
}

/// Holds the comparison against every rule.
pub(crate) fn find(c: &Comparison<'_>) -> Vec<Finding> {
    let rules = [
        symbols::find,
        size::find,
        initial_value::find,
        thread_locals::find,
        start::find,
        library::find,
        build::find,
        layout::find,
        signature::find,
        stack::find,
    ];
    let mut findings = Vec::new();
    for find in rules {
        find(c, &mut findings);
    }
    findings.sort_by(|a, b| {
        (a.severity, a.rule.id(), &a.subject).cmp(&(b.severity, b.rule.id(), &b.subject))
    });
    findings
}

/// Pairs of objects that hold state: not constants, not what the loader or the linker owns.
fn variables<'c>(c: &'c Comparison<'_>) -> impl Iterator<Item = (EntityId, EntityId)> + use<'c> {
    let is_variable = |image: &Image, id| {
        let entity = image.entity(id);
        let section = image.section_at(entity.addr);
        entity.kind == EntityKind::Object
            && entity.size > 0
            && section.is_some_and(|s| s.kind == SectionKind::Data)
    };
    let pairs = c.pairs.iter();
    pairs.filter(move |(base, fixed)| is_variable(c.base, *base) && is_variable(c.fixed, *fixed))
}
