//! Live cases: a real program with a real security fix, repaired under load.
//!
//! The story is the same for all: the fix is not there, is made live, is taken
//! back, is made live again, while clients check every answer.

mod cut;
mod dnsmasq;
mod dropbear;
mod extras;
mod haproxy;
mod hyper;
mod library;
mod memcached;
mod mosquitto;
mod nginx;
mod on_disk;
mod python;
mod recursor;
mod redis;
mod report;
mod selftest;
mod unbound;
mod verdict;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::claims::Claims;
use crate::invivo::{Diff, Invivo, Judgement};
use crate::load::Clients;
use crate::process::Server;
use crate::workspace::Workspace;
use crate::{corpus, install, paint};
use report::Story;
pub(crate) use selftest::selftest;
use verdict::Seen;
pub(crate) use verdict::{Verdict, print as print_verdicts};

/// The cases that `cargo xtask test` runs.
pub(crate) const TESTED: &[&str] = &[
    "redis-31228",
    "memcached-47783",
    "expat-45490",
    "unbound-8508",
];

/// Which program answers, seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// As the program does without the fix.
    Old,
    /// As the program does with the fix.
    New,
}

/// What must come of a case.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expectation {
    /// The fix goes live, is taken back and goes live again.
    Live,
    /// No patch is written, because of this rule and something whose name holds
    /// this text.
    Refused {
        rule: &'static str,
        subject: &'static str,
    },
}

/// Who knows that old and new functions must never be mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apart {
    /// They may be.
    No,
    /// The comparison saw it, and the patch says so: a plain apply waits.
    Patch,
    /// Only the person who allowed it, and asks for it.
    Person,
}

/// One program of the corpus: how it is run, loaded and asked.
pub(crate) trait Case {
    /// Its name in the corpus.
    fn name(&self) -> &'static str;
    /// What the fix is known as.
    fn label(&self) -> &'static str;
    /// The image that changes.
    fn image(&self) -> &'static str;
    /// The functions that the source of the fix changes, as the compiler leaves
    /// them: known from reading the fix, and none of them may be missed.
    fn changed(&self) -> &'static [&'static str];
    /// Functions that differ beside those, which no reason explains: each with what is
    /// known of it.
    fn extras(&self) -> &'static [extras::Extra] {
        &[]
    }
    /// What must come of it.
    fn expectation(&self) -> Expectation {
        Expectation::Live
    }
    /// What a person who knows the program says of the refusals: with that, the fix goes
    /// live after all.
    fn judgement(&self) -> Option<Judgement> {
        None
    }
    /// Whether old and new functions must never be mixed, so that the switch has
    /// to wait for a moment when no thread is inside any of them.
    fn apart(&self) -> Apart {
        Apart::No
    }
    /// Starts the programs of a folder; `run` is for what they write.
    fn start(&self, programs: &Path, run: &Path) -> Result<Server>;
    /// Starts the clients.
    fn load(&self, port: u16, clients: &mut Clients) -> Result<()>;
    /// Asks for what the fix changed; the text says what was seen.
    fn probe(&self, port: u16) -> Result<(Answer, String)>;
    /// How many requests a run must see answered.
    fn requests(&self) -> u64;
}

/// All cases; each has a recipe of the same name.
fn all() -> Vec<Box<dyn Case>> {
    vec![
        Box::new(redis::Redis::DeepPattern),
        Box::new(redis::Redis::OutputLimit),
        Box::new(memcached::Memcached),
        Box::new(library::Expat),
        Box::new(library::Sqlite),
        Box::new(haproxy::Haproxy::EmptyLength),
        Box::new(haproxy::Haproxy::Fragment),
        Box::new(unbound::Unbound),
        Box::new(nginx::Nginx),
        Box::new(hyper::Hyper),
        Box::new(python::Python),
        Box::new(dnsmasq::Dnsmasq::default()),
        Box::new(dropbear::Dropbear),
        Box::new(mosquitto::Mosquitto),
        Box::new(recursor::Recursor::default()),
    ]
}

/// The names of all cases.
pub(crate) fn names() -> Vec<&'static str> {
    all().iter().map(|case| case.name()).collect()
}

fn find(name: &str) -> Result<Box<dyn Case>> {
    let found = all().into_iter().find(|case| case.name() == name);
    found.with_context(|| format!("no case '{name}'; there are: {}", names().join(", ")))
}

/// Finds a case and builds it.
pub(crate) fn prepare(workspace: &Workspace, name: &str) -> Result<Box<dyn Case>> {
    let case = find(name)?;
    install::ensure(install::LIVE)?;
    corpus::build(workspace, &[case.name()])?;
    Ok(case)
}

/// Takes a case from its two builds to its end, whatever that is.
pub(crate) fn run(workspace: &Workspace, name: &str) -> Result<Verdict> {
    let case = prepare(workspace, name)?;
    let invivo = Invivo::build(workspace)?;
    let run = workspace.fresh_folder(&format!("live/{name}"))?;
    let programs = workspace.corpus.join(name);
    let image = |variant: &str| programs.join(variant).join(case.image());
    let (base, fixed, patch) = (image("base"), image("fixed"), run.join("patch"));
    println!("\n{}", paint::bold(format!("{name} · {}", case.label())));

    let diff = invivo.diff(&base, &fixed)?;
    let mut verdict = Verdict::new(case.as_ref(), &diff);
    let mut claims = Claims::default();
    claims.add(
        "it is known which functions the fix changes",
        !case.changed().is_empty(),
    );
    let missed = missed(case.as_ref(), &diff);
    claims.add(
        format!("no function that the fix changes is missed{missed}"),
        missed.is_empty(),
    );
    let extra = extras::wrong(case.as_ref(), &diff);
    extra.iter().for_each(|extra| println!("  {extra}"));
    claims.add(
        format!(
            "each other function that differs has a reason that ends in the fix, or is known: {} not",
            extra.len()
        ),
        extra.is_empty(),
    );
    let images = (&*base, &*fixed);
    let names = (name, case.label());
    let refusals = invivo.try_patch(images, &patch, names, None)?;
    for refusal in &refusals {
        println!("  {refusal}");
    }
    verdict.said = match refusals.first() {
        Some(refusal) => format!("refused: {} {}", refusal.rule, refusal.subject),
        None => "not refused".to_owned(),
    };
    let mut live = false;
    match case.expectation() {
        Expectation::Refused { rule, subject } => {
            let named = refusals
                .iter()
                .find(|refusal| refusal.rule == rule && refusal.subject.contains(subject));
            if let Some(refusal) = named {
                verdict.said = format!("refused: {rule} {}", refusal.subject);
            }
            claims.add(format!("{rule} forbids it, for {subject}"), named.is_some());
            if let Some(judgement) = case.judgement() {
                let left = invivo.try_patch(images, &patch, names, Some(judgement))?;
                claims.add(
                    format!(
                        "nothing forbids it once {} is allowed",
                        judgement.allow.join(", ")
                    ),
                    left.is_empty(),
                );
                live = left.is_empty();
                verdict.said += "; live when a person allows it";
            }
        }
        Expectation::Live if !refusals.is_empty() => {
            claims.add("nothing forbids to patch it live", false);
        }
        Expectation::Live => {
            live = true;
            verdict.said = "live".to_owned();
        }
    }
    if live {
        verdict.patch = Some(std::fs::metadata(&patch)?.len());
        let server = case.start(&programs.join("base"), &run)?;
        let seen = tell(case.as_ref(), server, &base, &invivo, &patch, &mut claims)?;
        verdict.seen = Some(seen);
    }
    let folders = (&*programs.join("base"), &*programs.join("fixed"));
    on_disk::tell(case.as_ref(), folders, &run, &invivo, &mut claims)?;
    claims.print();
    verdict.holds = claims.hold();
    Ok(verdict)
}

/// The functions of the fix that are not replaced, in words.
fn missed(case: &dyn Case, diff: &Diff) -> String {
    let missed: Vec<_> = case
        .changed()
        .iter()
        .copied()
        .filter(|name| !diff.hot.iter().any(|hot| hot.name == *name))
        .collect();
    if missed.is_empty() {
        String::new()
    } else {
        format!(": {}", missed.join(", "))
    }
}

/// Tells the story of a case that goes live.
fn tell(
    case: &dyn Case,
    server: Server,
    image: &Path,
    invivo: &Invivo,
    patch: &Path,
    claims: &mut Claims,
) -> Result<Seen> {
    let mut story = Story::begin(case, server, image, claims)?;
    story.probe("before", Answer::Old)?;
    story.watch("before", Duration::from_secs(3))?;
    story.apply(invivo, patch)?;
    story.probe("after the apply", Answer::New)?;
    story.watch("patched", Duration::from_secs(3))?;
    story.revert(invivo)?;
    story.probe("after the revert", Answer::Old)?;
    story.watch("reverted", Duration::from_secs(2))?;
    story.apply(invivo, patch)?;
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

#[cfg(test)]
mod tests {
    #[test]
    fn each_case_has_a_recipe_and_each_recipe_a_case() {
        let workspace = crate::workspace::Workspace::find().unwrap();
        let recipes = std::fs::read_dir(workspace.root.join("corpus/recipes")).unwrap();
        let mut recipes: Vec<_> = recipes
            .map(|recipe| recipe.unwrap().file_name().into_string().unwrap())
            .map(|recipe| recipe.trim_end_matches(".sh").to_owned())
            .collect();
        recipes.sort();
        let mut cases = super::names();
        cases.sort_unstable();
        assert_eq!(recipes, cases);
    }
}
