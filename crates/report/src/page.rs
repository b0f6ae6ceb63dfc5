//! Everything on the page, in the order in which a person needs it.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use invivo_compare::{Comparison, Finding, Severity};
use invivo_image::{DebugSections, EntityKind, Image, demangle};

use crate::alignment::Both;
use crate::graph::{Graph, Tie};
use crate::listing::Listing;
use crate::names::{Names, Side, visible};
use crate::policy::{SCRIPT, STYLE, policy};
use crate::rows::{Room, Table};
use crate::subjects::{Sort, Subject, numbers, subjects, ties};
use crate::types::{Member, members};
use crate::{Marks, Titles};

/// Functions with a table; the others are named.
const MOST_LISTED: usize = 300;
/// Functions, findings or names in one list.
const MOST_NAMED: usize = 5_000;
/// Reasons of one function.
const MOST_REASONS: usize = 50;
/// Rows of all tables; about 400 bytes each.
const MOST_ROWS: usize = 40_000;

/// One of the two builds.
pub(crate) struct Build {
    role: &'static str,
    title: String,
    id: String,
    functions: usize,
}

/// A finding with what is shown of it.
pub(crate) struct Found {
    rule: &'static str,
    refuses: bool,
    subject: String,
    text: String,
    /// Where the source has it.
    place: Option<String>,
    /// Why a person allows it.
    because: Option<String>,
    members: Vec<Member>,
}

/// A function of the page.
pub(crate) struct Function {
    name: String,
    sort: Sort,
    reasons: Vec<String>,
    more_reasons: usize,
    calls: Vec<usize>,
    called_by: Vec<usize>,
    /// None where it could not be decoded, or is one too many.
    table: Option<Table>,
    is_listed: bool,
}

/// The page.
#[derive(Template)]
#[template(path = "report.html")]
pub(crate) struct Page {
    policy: String,
    style: &'static str,
    script: &'static str,
    version: &'static str,
    builds: [Build; 2],
    refused: usize,
    findings: Vec<Found>,
    hot: usize,
    added: usize,
    functions: Vec<Function>,
    graph: Graph,
    left_out: Vec<(String, String)>,
    removed: Vec<String>,
    /// What shows which functions were compiled for hot patching, and whether that forbids a patch.
    marks: Vec<String>,
    marks_forbid: bool,
    /// What was left out to keep the page readable.
    cuts: Vec<String>,
}

impl Page {
    pub(crate) fn new(c: &Comparison<'_>, titles: Titles<'_>, marks: Marks<'_>) -> Page {
        let mut cuts = Vec::new();
        let mut subjects = subjects(c);
        cut(&mut subjects, "functions", &mut cuts);
        let (functions, ties) = functions(c, &subjects, &mut cuts);
        let names: Vec<&str> = functions.iter().map(|f| f.name.as_str()).collect();
        let graph = Graph::new(&names, &ties);
        let mut findings: Vec<Found> = c.findings.iter().map(|f| found(c, f)).collect();
        let refused = findings.iter().filter(|finding| finding.refuses).count();
        cut(&mut findings, "findings", &mut cuts);
        let mut removed: Vec<String> = c
            .removed
            .iter()
            .map(|id| visible(&demangle(c.base.entity(*id).name())))
            .collect();
        cut(&mut removed, "removed functions", &mut cuts);
        let left_out = c.left_out.iter().map(|hot| {
            let reasons: Vec<&str> = hot.reasons.iter().map(|r| r.text.as_str()).collect();
            (visible(&hot.name), visible(&reasons.join("; ")))
        });
        let mut left_out: Vec<(String, String)> = left_out.collect();
        cut(
            &mut left_out,
            "functions with other line numbers",
            &mut cuts,
        );
        Page {
            policy: policy(),
            style: STYLE,
            script: SCRIPT,
            version: env!("CARGO_PKG_VERSION"),
            builds: [
                build("base", titles.base, c.base),
                build("fixed", titles.fixed, c.fixed),
            ],
            refused,
            findings,
            hot: c.hot.len(),
            added: c.added.len(),
            functions,
            graph,
            left_out,
            removed,
            marks: marks.lines.iter().map(|line| visible(line)).collect(),
            marks_forbid: marks.forbid,
            cuts,
        }
    }

    fn name(&self, function: &usize) -> &str {
        &self.functions[*function].name
    }

    fn notes(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| !finding.refuses)
            .count()
    }
}

fn cut<T>(list: &mut Vec<T>, what: &str, cuts: &mut Vec<String>) {
    if list.len() > MOST_NAMED {
        cuts.push(format!(
            "{} of {} {what}",
            list.len() - MOST_NAMED,
            list.len()
        ));
        list.truncate(MOST_NAMED);
    }
}

fn build(role: &'static str, title: &str, image: &Image) -> Build {
    let functions = image
        .entities
        .iter()
        .filter(|e| e.kind == EntityKind::Function);
    Build {
        role,
        title: visible(title),
        id: image
            .build_id
            .as_ref()
            .map_or("none".to_owned(), ToString::to_string),
        functions: functions.count(),
    }
}

fn found(c: &Comparison<'_>, finding: &Finding) -> Found {
    Found {
        rule: finding.rule.id(),
        refuses: finding.severity == Severity::Refuse,
        subject: visible(&finding.subject),
        text: visible(&finding.text),
        place: finding.place.as_deref().map(visible),
        because: finding.because.as_deref().map(visible),
        members: members(c, finding),
    }
}

type Ties = BTreeMap<(usize, usize), Tie>;

fn functions(
    c: &Comparison<'_>,
    subjects: &[Subject],
    cuts: &mut Vec<String>,
) -> (Vec<Function>, Ties) {
    let base_names = Names::new(c, Side::Base, numbers(subjects, Side::Base));
    let fixed_names = Names::new(c, Side::Fixed, numbers(subjects, Side::Fixed));
    // Broken debug data are as good as none: a finding says so.
    let sections = [c.base, c.fixed].map(|image| DebugSections::of(image).ok().flatten());
    let [base_debug, fixed_debug] = sections
        .each_ref()
        .map(|sections| sections.as_ref()?.open().ok());
    let mut room = Room(MOST_ROWS);
    let mut functions = Vec::new();
    for (number, subject) in subjects.iter().enumerate() {
        let is_listed = number < MOST_LISTED;
        let listings = is_listed.then(|| {
            let base = subject.base.as_ref().map_or_else(
                || Some(Listing::default()),
                |parts| Listing::of(&base_names, base_debug.as_ref(), parts),
            );
            base.zip(Listing::of(
                &fixed_names,
                fixed_debug.as_ref(),
                &subject.fixed,
            ))
        });
        let table = listings.flatten().map(|(base, fixed)| {
            let both = Both {
                base: &base,
                fixed: &fixed,
                base_names: &base_names,
                fixed_names: &fixed_names,
            };
            Table::new(c, &both, &mut room)
        });
        functions.push(Function {
            name: subject.name.clone(),
            sort: subject.sort,
            more_reasons: subject.reasons.len().saturating_sub(MOST_REASONS),
            reasons: subject.reasons.iter().take(MOST_REASONS).cloned().collect(),
            calls: Vec::new(),
            called_by: Vec::new(),
            table,
            is_listed,
        });
    }
    let ties = ties(subjects, &base_names, &fixed_names);
    for (from, to) in ties.keys() {
        functions[*from].calls.push(*to);
        functions[*to].called_by.push(*from);
    }
    if functions.len() > MOST_LISTED {
        let more = functions.len() - MOST_LISTED;
        cuts.push(format!("the instructions of {more} functions"));
    }
    let tables = functions.iter().filter_map(|f| f.table.as_ref());
    let folds = tables.clone().flat_map(|table| &table.blocks);
    let equal: usize = folds
        .filter(|b| b.folded && b.rows.is_empty())
        .map(|b| b.count)
        .sum();
    let differing: usize = tables.map(|table| table.cut).sum();
    let parts = [(equal, "equal"), (differing, "differing")];
    cuts.extend(
        parts
            .iter()
            .filter(|(rows, _)| *rows > 0)
            .map(|(rows, what)| format!("{rows} {what} instructions")),
    );
    (functions, ties)
}

/// What may be searched for in a function, for the template.
fn words(function: &Function) -> String {
    let unique: BTreeSet<&str> = function.reasons.iter().map(String::as_str).collect();
    let mut words = vec![function.name.as_str(), function.sort.word()];
    words.extend(unique);
    words.join(" ").to_lowercase()
}
