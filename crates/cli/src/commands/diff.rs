//! `invivo diff`

use std::path::Path;

use invivo_compare::{Comparison, Finding, Hot, Phases, Reason, ReasonKind, Severity};
use invivo_image::{EntityKind, Image, demangle};
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments;
use crate::commands::marks::Marks;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::load_pair;
use crate::output::{Output, counted};
use crate::timing;
use crate::verdict::{allow, findings};

/// `diff --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Diff {
    schema: &'static str,
    functions: Functions,
    /// Functions that have to be replaced.
    hot: Vec<HotFunction>,
    /// Functions in which nothing but line numbers differs: the old ones stay.
    left_out: Vec<HotFunction>,
    /// Functions that only the fixed build has.
    added: Vec<String>,
    /// Functions that only the base has.
    removed: Vec<String>,
    /// What stands in the way, and what a person should know.
    findings: Vec<Finding>,
    /// What shows which functions of a Windows build were compiled for hot patching.
    #[serde(skip_serializing_if = "Option::is_none")]
    marks: Option<Marks>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Functions {
    base: usize,
    fixed: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HotFunction {
    name: String,
    reasons: Vec<Reason>,
}

pub(crate) fn run(arguments: &arguments::Diff, output: &Output) -> Result<u8, Failure> {
    let busy = output.busy("comparing");
    let mut read = Phases::start(Some(timing::processor_time));
    let (base, fixed) = load_pair(&arguments.pair)?;
    read.end("read");
    let mut comparison = Comparison::with(&base, &fixed, arguments.pair.options());
    allow(&mut comparison, &arguments.judged)?;
    comparison.findings = findings(&comparison);
    drop(busy);
    if arguments.pair.time {
        timing::print(&read, &comparison.phases);
    }
    let diff = describe(&comparison);
    if let Some(path) = &arguments.html {
        let _busy = output.busy("writing the report");
        write_report(&comparison, diff.marks.as_ref(), arguments, path)?;
    }
    output.data(&diff, || print(&diff))?;
    let others = diff.marks.as_ref().is_some_and(|marks| !marks.agree());
    let is_refused = comparison.is_refused() || others;
    Ok(if is_refused { REFUSED } else { 0 })
}

fn write_report(
    comparison: &Comparison<'_>,
    marks: Option<&Marks>,
    arguments: &arguments::Diff,
    path: &Path,
) -> Result<(), Failure> {
    let title = |path: &Path| path.display().to_string();
    let titles = invivo_report::Titles {
        base: &title(&arguments.pair.base),
        fixed: &title(&arguments.pair.fixed),
    };
    let lines = marks.map(Marks::lines).unwrap_or_default();
    let marks = invivo_report::Marks {
        lines: &lines,
        forbid: marks.is_some_and(|marks| !marks.agree()),
    };
    std::fs::write(path, invivo_report::html(comparison, titles, marks)).map_err(|error| {
        Failure::new(USAGE, format!("{}: {error}", path.display()))
            .hint("give a file in a folder that you may write to: --html FILE")
    })
}

fn describe(c: &Comparison<'_>) -> Diff {
    let count = |image: &Image| {
        let functions = image.entity_ids();
        // What object files only refer to is no function of theirs.
        let own =
            functions.filter(|(id, e)| e.kind == EntityKind::Function && !image.is_external(*id));
        own.count()
    };
    let names = |image: &Image, ids: &[invivo_image::EntityId]| {
        ids.iter()
            .map(|id| demangle(image.entity(*id).name()))
            .collect()
    };
    let functions = |functions: &[Hot]| -> Vec<HotFunction> {
        let told = functions.iter().map(|hot| HotFunction {
            name: hot.name.clone(),
            reasons: hot.reasons.clone(),
        });
        told.collect()
    };
    Diff {
        schema: "invivo.diff/1",
        functions: Functions {
            base: count(c.base),
            fixed: count(c.fixed),
        },
        hot: functions(&c.hot),
        left_out: functions(&c.left_out),
        added: names(c.fixed, &c.added),
        removed: names(c.base, &c.removed),
        findings: c.findings.clone(),
        marks: Marks::of_comparison(c),
    }
}

fn print(diff: &Diff) {
    anstream::println!(
        "{} of {} functions differ, {} added, {} removed",
        diff.hot.len().bold(),
        diff.functions.base,
        diff.added.len(),
        diff.removed.len()
    );
    const SHOWN: usize = 4;
    for hot in &diff.hot {
        anstream::println!("\n  {}", hot.name.bold());
        for reason in hot.reasons.iter().take(SHOWN) {
            anstream::println!("      {}", reason.text);
        }
        if hot.reasons.len() > SHOWN {
            anstream::println!(
                "      and {} more (--json shows all)",
                hot.reasons.len() - SHOWN
            );
        }
    }
    let doubtful = |hot: &&HotFunction| {
        let mut reasons = hot.reasons.iter();
        reasons.all(|reason| reason.kind == ReasonKind::Doubt)
    };
    let doubtful = diff.hot.iter().filter(doubtful).count();
    if doubtful > 0 {
        anstream::println!(
            "\n  of these, {doubtful} only may differ: in programs with fixed addresses nothing \
             tells addresses from numbers;\n  linked with -Wl,--emit-relocs or with -pie it would \
             be known"
        );
    }
    for (title, names) in [("added", &diff.added), ("removed", &diff.removed)] {
        for name in names {
            anstream::println!("\n  {} {title}", name.bold());
        }
    }
    if !diff.left_out.is_empty() {
        let functions = counted(diff.left_out.len(), "function");
        anstream::println!(
            "\n  left out: {functions} in which only line numbers moved \
             (--keep-line-changes replaces them, too)"
        );
    }
    if let Some(marks) = &diff.marks {
        anstream::println!();
        marks.print(8);
    }
    anstream::println!();
    print_findings(&diff.findings);
    let mut findings = diff.findings.iter();
    let refused = findings.any(|finding| finding.severity == Severity::Refuse)
        || diff.marks.as_ref().is_some_and(|marks| !marks.agree());
    if diff.hot.is_empty() && !refused {
        anstream::println!("nothing to patch: the two builds do not differ in anything that runs");
    } else if refused {
        anstream::println!("{}", "not to be patched live, for the reasons above".red());
    } else {
        anstream::println!("{}", "nothing found that forbids a live patch".green());
    }
}

pub(crate) fn print_findings(findings: &[Finding]) {
    for finding in findings {
        let rule = finding.rule.id();
        match finding.severity {
            Severity::Refuse => {
                anstream::println!("{} {}", rule.red().bold(), finding.subject.bold())
            }
            Severity::Allowed | Severity::Note => {
                anstream::println!("{} {}", rule.yellow(), finding.subject.bold())
            }
        }
        match &finding.place {
            Some(place) => anstream::println!("      {} ({place})", finding.text),
            None => anstream::println!("      {}", finding.text),
        }
        if let Some(because) = &finding.because {
            anstream::println!("      allowed: {because}");
        }
        anstream::println!();
    }
}
