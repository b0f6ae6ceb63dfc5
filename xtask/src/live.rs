//! Live cases: a real program with a real security fix, repaired under load.
//!
//! The story is the same for all: the fix is not there, is made live, is taken
//! back, is made live again, while clients check every answer.

mod library;
mod memcached;
mod redis;
mod report;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::claims::Claims;
use crate::invivo::Invivo;
use crate::load::Clients;
use crate::process::Server;
use crate::workspace::Workspace;
use crate::{corpus, install, paint};
use report::Story;

/// The cases that `cargo xtask test` runs.
pub(crate) const TESTED: &[&str] = &["redis", "memcached", "expat"];

/// Which program answers, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// As the program does without the fix.
    Old,
    /// As the program does with the fix.
    New,
}

/// One program of the corpus: how it is run, loaded and asked.
pub(crate) trait Case {
    /// Its name in the corpus.
    fn name(&self) -> &'static str;
    /// What the fix is known as.
    fn label(&self) -> &'static str;
    /// The image that changes.
    fn image(&self) -> &'static str;
    /// Starts the programs of a folder; `run` is for what they write.
    fn start(&self, programs: &Path, run: &Path) -> Result<Server>;
    /// Starts the clients.
    fn load(&self, port: u16, clients: &mut Clients) -> Result<()>;
    /// Asks for what the fix changed; the text says what was seen.
    fn probe(&self, port: u16) -> Result<(Answer, String)>;
    /// How many requests a run must see answered.
    fn requests(&self) -> u64;
}

fn find(name: &str) -> Result<Box<dyn Case>> {
    let cases: [Box<dyn Case>; 4] = [
        Box::new(redis::Redis),
        Box::new(memcached::Memcached),
        Box::new(library::Expat),
        Box::new(library::Sqlite),
    ];
    let known: Vec<_> = cases.iter().map(|case| case.name()).collect();
    let found = cases.into_iter().find(|case| case.name().starts_with(name));
    found.with_context(|| format!("no live case '{name}'; there are: {}", known.join(", ")))
}

/// Finds a case and builds it.
pub(crate) fn prepare(workspace: &Workspace, name: &str) -> Result<Box<dyn Case>> {
    let case = find(name)?;
    install::ensure(install::LIVE)?;
    corpus::build(workspace, &[case.name()])?;
    Ok(case)
}

/// Checks the probe and the load without `invivo`: the base must answer OLD,
/// the fixed program NEW, and no answer may be wrong.
pub(crate) fn selftest(workspace: &Workspace, name: &str) -> Result<bool> {
    let case = prepare(workspace, name)?;
    let mut claims = Claims::default();
    for (variant, expected) in [("base", Answer::Old), ("fixed", Answer::New)] {
        let run = workspace.fresh_folder(&format!("live/{}-{variant}", case.name()))?;
        let server = case.start(&workspace.corpus.join(case.name()).join(variant), &run)?;
        let mut clients = Clients::default();
        case.load(server.port, &mut clients)?;
        thread::sleep(Duration::from_secs(2));
        let probed = case.probe(server.port);
        let meter = std::sync::Arc::clone(&clients.meter);
        let records = clients.finish();
        let (answer, seen) = probed?;
        let answers = meter.answers();
        let wrong: u64 = records.iter().map(|record| record.wrong).sum();
        meter
            .errors()
            .iter()
            .for_each(|error| println!("  {}", paint::bad(error)));
        claims.add(
            format!("{} {variant}: answers {expected:?} ({seen})", case.name()),
            answer == expected,
        );
        claims.add(
            format!(
                "{} {variant}: {} answers, 0 wrong, 0 errors",
                case.name(),
                paint::count(answers)
            ),
            answers > 0 && wrong == 0 && meter.errors().is_empty(),
        );
    }
    claims.print();
    Ok(claims.hold())
}

/// Tells the whole story of a case; `true` when every claim was seen.
pub(crate) fn run(workspace: &Workspace, name: &str) -> Result<bool> {
    let case = prepare(workspace, name)?;
    let invivo = Invivo::build(workspace)?;
    let run = workspace.fresh_folder(&format!("live/{}", case.name()))?;
    let programs = workspace.corpus.join(case.name());
    let image = |variant: &str| programs.join(variant).join(case.image());
    let patch = run.join("patch");
    println!(
        "\n{}",
        paint::bold(format!("{} · {}", case.name(), case.label()))
    );

    let begun = Instant::now();
    invivo.make_patch(
        &image("base"),
        &image("fixed"),
        &patch,
        case.name(),
        case.label(),
    )?;
    println!(
        "  the patch was made from two builds in {}",
        paint::micros(begun.elapsed().as_micros() as u64)
    );

    let server = case.start(&programs.join("base"), &run)?;
    let mut story = Story::begin(case.as_ref(), server)?;
    story.probe("before", Answer::Old)?;
    story.watch("before", Duration::from_secs(3))?;
    story.apply(&invivo, &patch)?;
    story.probe("after the apply", Answer::New)?;
    story.watch("patched", Duration::from_secs(3))?;
    story.revert(&invivo)?;
    story.probe("after the revert", Answer::Old)?;
    story.watch("reverted", Duration::from_secs(2))?;
    story.apply(&invivo, &patch)?;
    story.probe("after the second apply", Answer::New)?;
    story.watch("patched", Duration::from_secs(2))?;
    story.finish()
}

/// Says why a story ended early.
fn ended(server: &mut Server, step: &str) -> Result<()> {
    if server.alive() {
        return Ok(());
    }
    bail!("{} while {step}", server.fate());
}
