//! The requirement checks: what forbids a live patch, and what a person should know.

use invivo_image::{EntityKind, Image, SectionKind, demangle};
use serde::Serialize;

use crate::Comparison;
use crate::meaning::Meaning;

/// A numbered requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub enum Rule {
    /// The base's symbols must be known.
    #[serde(rename = "R-SYMBOLS")]
    Symbols,
    /// A variable that lives in the process keeps its initial value.
    #[serde(rename = "R-INIT")]
    InitialValue,
    /// A variable that lives in the process keeps its size.
    #[serde(rename = "R-SIZE")]
    Size,
    /// Thread-locals keep their places.
    #[serde(rename = "R-TLS")]
    ThreadLocals,
    /// What runs at start and exit has run already, or will run as it was.
    #[serde(rename = "R-START")]
    Start,
    /// The same libraries are needed.
    #[serde(rename = "R-LIBRARY")]
    Library,
    /// Both images come from the same build set-up.
    #[serde(rename = "R-BUILD")]
    Build,
    /// Types that live data has keep their layout.
    #[serde(rename = "R-LAYOUT")]
    Layout,
    /// A function that does not return runs its old body for good.
    #[serde(rename = "R-STACK")]
    Stack,
    /// Every reference of the patch must be bound to one place.
    #[serde(rename = "R-BIND")]
    Binding,
    /// Unwinding through the new code must be possible.
    #[serde(rename = "R-UNWIND")]
    Unwind,
}

impl Rule {
    /// Its id, such as `R-INIT`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Rule::Symbols => "R-SYMBOLS",
            Rule::InitialValue => "R-INIT",
            Rule::Size => "R-SIZE",
            Rule::ThreadLocals => "R-TLS",
            Rule::Start => "R-START",
            Rule::Library => "R-LIBRARY",
            Rule::Build => "R-BUILD",
            Rule::Layout => "R-LAYOUT",
            Rule::Stack => "R-STACK",
            Rule::Binding => "R-BIND",
            Rule::Unwind => "R-UNWIND",
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

pub(crate) fn find(c: &Comparison<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    symbols(c, &mut findings);
    variables(c, &mut findings);
    thread_locals(c, &mut findings);
    start(c, &mut findings);
    libraries(c, &mut findings);
    scale(c, &mut findings);
    crate::layouts::types(c, &mut findings);
    crate::layouts::stays(c, &mut findings);
    findings.sort_by(|a, b| {
        (a.severity, a.rule.id(), &a.subject).cmp(&(b.severity, b.rule.id(), &b.subject))
    });
    findings
}

fn symbols(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for (which, image) in [("base", c.base), ("fixed", c.fixed)] {
        if !image.has_symbols {
            findings.push(Finding::refuse(
                Rule::Symbols,
                which,
                format!(
                    "the {which} image has no symbol table; its debug file is needed \
                     (--{which}-debug FILE, or installed below /usr/lib/debug/.build-id)"
                ),
            ));
        }
    }
}

/// True for objects that hold state: not constants, not what the loader or the linker owns.
fn is_variable(image: &Image, entity: &invivo_image::Entity) -> bool {
    entity.kind == EntityKind::Object
        && entity.size > 0
        && image
            .section_at(entity.addr)
            .is_some_and(|s| s.kind == SectionKind::Data)
}

fn variables(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for (base, fixed) in c.pairs.iter() {
        let (one, other) = (c.base.entity(base), c.fixed.entity(fixed));
        if !is_variable(c.base, one) || !is_variable(c.fixed, other) {
            continue;
        }
        let name = demangle(one.name());
        if one.size != other.size {
            findings.push(Finding::refuse(
                Rule::Size,
                name,
                format!(
                    "has {} bytes in the running image and {} in the fixed one; \
                     the running one cannot grow or shrink",
                    one.size, other.size
                ),
            ));
        } else if !meaning.same_object(base, fixed) {
            findings.push(Finding::refuse(
                Rule::InitialValue,
                name,
                "has another initial value in the fixed image; the running one keeps \
                 what it has, which the fixed code may not expect",
            ));
        }
    }
}

fn thread_locals(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let layout = |image: &Image| -> Vec<(String, u64, u64)> {
        let mut all: Vec<_> = image
            .thread_locals
            .iter()
            .map(|s| (s.name.to_string(), s.addr.0, s.size))
            .collect();
        all.sort();
        all
    };
    let (base, fixed) = (layout(c.base), layout(c.fixed));
    for missing in fixed.iter().filter(|local| !base.contains(local)) {
        findings.push(Finding::refuse(
            Rule::ThreadLocals,
            demangle(&missing.0),
            "is a thread-local that is new or has another place or size; running threads \
             have their blocks already",
        ));
    }
    let bytes = |image: &Image| {
        let sections = image.sections.iter().filter(|s| s.kind == SectionKind::Tls);
        sections
            .flat_map(|s| image.section_bytes(s).to_vec())
            .collect::<Vec<u8>>()
    };
    if base == fixed && (c.base.tls_block != c.fixed.tls_block || bytes(c.base) != bytes(c.fixed)) {
        findings.push(Finding::refuse(
            Rule::ThreadLocals,
            "thread-locals",
            "have other initial values in the fixed image; running threads keep what they have",
        ));
    }
}

fn start(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    let meaning = Meaning::new(c);
    for name in [
        ".preinit_array",
        ".init_array",
        ".fini_array",
        ".ctors",
        ".dtors",
    ] {
        let (one, other) = (c.base.section_named(name), c.fixed.section_named(name));
        let same = match (one, other) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                let size = a.range.end.0 - a.range.start.0;
                size == b.range.end.0 - b.range.start.0
                    && meaning.same_data(a.range.start, b.range.start, size)
            }
            _ => false,
        };
        if !same {
            findings.push(Finding::refuse(
                Rule::Start,
                name,
                "lists other functions in the fixed image; those of the running one ran at its start",
            ));
        }
    }
}

fn libraries(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for library in c
        .fixed
        .needed
        .iter()
        .filter(|library| !c.base.needed.contains(library))
    {
        findings.push(Finding::refuse(
            Rule::Library,
            library.as_str(),
            "is needed by the fixed image only; the running process has not loaded it",
        ));
    }
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
