//! The requirement rules: what forbids a live patch, and what a person should know.
//!
//! Each rule has a module of its own; R-BIND, R-UNWIND and R-HOOK are found when the patch
//! is planned.

mod aliases;
mod alignment;
mod allocation;
mod body;
mod bounded;
mod build;
mod constant;
mod endings;
mod export;
mod given;
mod guard;
mod import;
mod initial_value;
mod judgement;
mod layout;
mod library;
mod named;
mod once;
mod personality;
mod removed;
mod resolver;
mod resume;
mod signature;
mod size;
mod stack;
mod start;
mod statics;
mod symbols;
mod texts;
mod thread_local_users;
mod thread_locals;
mod virtual_table;

use std::collections::BTreeSet;
use std::str::FromStr;

use invivo_image::{DebugData, EntityId, EntityKind, Image, SectionKind};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use judgement::{Judgement, NotJudged};
pub use texts::About;

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
    /// Calls through pointers are checked in the same way.
    #[serde(rename = "R-CFG")]
    Guard,
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
    /// Places inside functions that live data name stay what they are.
    #[serde(rename = "R-RESUME")]
    Resume,
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
    /// All rules, in the order of their ids.
    pub const ALL: [Rule; 24] = [
        Rule::Allocation,
        Rule::Binding,
        Rule::Build,
        Rule::Guard,
        Rule::Constant,
        Rule::Export,
        Rule::Hook,
        Rule::Resolver,
        Rule::Import,
        Rule::InitialValue,
        Rule::Layout,
        Rule::Library,
        Rule::Personality,
        Rule::Removed,
        Rule::Resume,
        Rule::Signature,
        Rule::Size,
        Rule::Stack,
        Rule::Start,
        Rule::Static,
        Rule::Symbols,
        Rule::ThreadLocals,
        Rule::Unwind,
        Rule::VirtualTable,
    ];
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(id: &str) -> Result<Rule, String> {
        let rule = Rule::ALL.into_iter().find(|rule| rule.id() == id);
        rule.ok_or_else(|| format!("{id} is no rule; `invivo explain` lists them"))
    }
}

/// What a finding means for the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Forbids it.
    Refuse,
    /// Would forbid it, but a person has judged that it does no harm.
    Allowed,
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
    /// Where the source has it: file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Why a person allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl Finding {
    /// A finding that forbids the patch.
    #[must_use]
    pub fn refuse(rule: Rule, subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding::with(Severity::Refuse, rule, subject.into(), text.into())
    }

    fn with(severity: Severity, rule: Rule, subject: String, text: String) -> Finding {
        debug_assert!(
            rule.severities().contains(&severity),
            "{rule:?}: {severity:?}"
        );
        Finding {
            rule,
            severity,
            subject,
            text,
            place: None,
            because: None,
        }
    }

    /// A finding that a person should know.
    #[must_use]
    pub fn note(rule: Rule, subject: impl Into<String>, text: impl Into<String>) -> Finding {
        Finding::with(Severity::Note, rule, subject.into(), text.into())
    }
}

/// Holds the comparison against every rule.
pub(crate) fn find(
    c: &Comparison<'_>,
    base_debug: Option<&DebugData<'_>>,
    fixed_debug: Option<&DebugData<'_>>,
) -> Vec<Finding> {
    let rules: [fn(&Comparison<'_>, &mut Vec<Finding>); 27] = [
        symbols::find,
        build::find,
        guard::find,
        layout::find,
        layout::numbers::find,
        signature::find,
        stack::find,
        size::find,
        alignment::find,
        initial_value::find,
        constant::find,
        bounded::find,
        thread_locals::find,
        thread_local_users::find,
        statics::find,
        removed::find,
        aliases::find,
        resume::find,
        import::find,
        export::find,
        library::find,
        start::find,
        once::find,
        resolver::find,
        personality::find,
        virtual_table::find,
        crate::unowned::find,
    ];
    let found = rules.into_par_iter().map(|find| {
        let mut findings = Vec::new();
        find(c, &mut findings);
        findings
    });
    let (found, sizes) = rayon::join(
        || found.collect::<Vec<_>>(),
        || allocation::find(c, base_debug, fixed_debug),
    );
    let mut findings = found.concat();
    findings.extend(sizes);
    sort(&mut findings);
    findings
}

/// Refusals first; then by rule and subject, so that equal comparisons read alike.
fn sort(findings: &mut [Finding]) {
    findings.sort_by(|a, b| {
        (a.severity, a.rule.id(), &a.subject).cmp(&(b.severity, b.rule.id(), &b.subject))
    });
}

/// True for an object that holds state: no constant, and nothing that the loader or the
/// linker owns.
pub(crate) fn is_variable(image: &Image, id: EntityId) -> bool {
    let entity = image.entity(id);
    let kind = image.section_at(entity.addr).map(|section| section.kind);
    // In code that may be written, too.
    let written = || kind == Some(SectionKind::Text) && !image.is_constant_at(entity.addr);
    entity.kind == EntityKind::Object
        && entity.size > 0
        && (kind == Some(SectionKind::Data) || written())
}

/// Pairs of variables.
fn variables<'c>(c: &'c Comparison<'_>) -> impl Iterator<Item = (EntityId, EntityId)> + use<'c> {
    let pairs = c.pairs.iter();
    pairs.filter(move |(base, fixed)| is_variable(c.base, *base) && is_variable(c.fixed, *fixed))
}

/// Names of libraries' variables that the loader copies into the image.
fn copied(image: &Image) -> BTreeSet<&str> {
    let copied = image.imports.iter().filter(|import| import.copied);
    copied.map(|import| &*import.name).collect()
}
