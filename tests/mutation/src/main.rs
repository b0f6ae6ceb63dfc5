//! Changes real images at random, one place at a time, and compares each with the original.
//!
//! Every change must be found, or be proved to mean nothing by code that does not use the
//! comparison ([`proof`]). What is neither is a miss, and a miss is a mistake of the
//! comparison: a fix that looks like it would not be delivered. Found means that what the change
//! concerns is named ([`concerned`]); to say that something else differs is a mistake as well.

mod concerned;
mod mutation;
mod numbers;
mod programs;
mod proof;
mod subject;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use invivo_compare::Comparison;
use invivo_image::Image;
use rayon::prelude::*;

use crate::mutation::Mutation;
use crate::numbers::Numbers;
use crate::proof::Proof;
use crate::subject::{Kind, Subject};

const USAGE: &str = "usage: mutate [--count N] [--seed N] [--only INDEX] [IMAGE…]";

/// What came of a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The file is refused.
    Refused,
    /// The comparison says that something differs.
    Found,
    /// It means nothing.
    Meaningless(Proof),
    Missed,
    /// Something differs, they say, but not what was changed.
    Elsewhere,
    /// The comparison panicked.
    Crashed,
}

impl Outcome {
    /// True for what no comparison may come to.
    fn is_bad(self) -> bool {
        matches!(
            self,
            Outcome::Missed | Outcome::Elsewhere | Outcome::Crashed
        )
    }
}

struct Options {
    count: u64,
    seed: u64,
    only: Option<u64>,
    images: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut options = Options {
        count: 10_000,
        seed: now,
        only: None,
        images: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64> {
            let value = words
                .next()
                .with_context(|| format!("{word} needs a number"))?;
            value
                .parse()
                .with_context(|| format!("{word} {value} is no number"))
        };
        match word.as_str() {
            "--count" => options.count = number()?,
            "--seed" => options.seed = number()?,
            "--only" => options.only = Some(number()?),
            unknown if unknown.starts_with('-') => bail!("{unknown} is not known\n\n{USAGE}"),
            image => options.images.push(image.into()),
        }
    }
    Ok(options)
}

/// Runs the mutations; true if none was missed.
fn run(options: &Options) -> Result<bool> {
    let begin = Instant::now();
    let subjects = programs::subjects(&options.images)?;
    let names: Vec<&str> = subjects
        .iter()
        .map(|subject| subject.name.as_str())
        .collect();
    println!("seed {}, {}", options.seed, names.join(", "));
    let indices = match options.only {
        Some(index) => index..index + 1,
        None => 0..options.count,
    };
    let count = indices.end - indices.start;
    let done: Vec<(Kind, Outcome)> = indices
        .into_par_iter()
        .map(|index| {
            let mut numbers = Numbers::of(options.seed, index);
            let subject = &subjects[numbers.below(subjects.len())];
            let mutation = Mutation::new(subject, &mut numbers);
            let outcome = outcome(subject, &mutation);
            if outcome.is_bad() || options.only.is_some() {
                println!(
                    "{outcome:?} {}, --only {index}",
                    proof::describe(subject, &mutation)
                );
            }
            (mutation.kind, outcome)
        })
        .collect();
    let bad = report(&done);
    println!(
        "{count} mutations in {:.1} s: {bad} missed",
        begin.elapsed().as_secs_f64()
    );
    Ok(bad == 0)
}

fn outcome(subject: &Subject, mutation: &Mutation) -> Outcome {
    let found =
        std::panic::catch_unwind(
            || match Image::parse(Arc::from(&mutation.bytes[..]), None) {
                Err(_) => Outcome::Refused,
                Ok(mutant) => {
                    let c = Comparison::new(&subject.image, &mutant);
                    if c.is_unchanged() {
                        Outcome::Missed
                    } else if concerned::is_named(subject, mutation, &c) {
                        Outcome::Found
                    } else {
                        Outcome::Elsewhere
                    }
                }
            },
        );
    match found {
        Err(_) => Outcome::Crashed,
        Ok(bad @ (Outcome::Missed | Outcome::Elsewhere)) => {
            proof::meaningless(subject, mutation).map_or(bad, Outcome::Meaningless)
        }
        Ok(other) => other,
    }
}

/// Prints what came of each kind; returns how many were missed or crashed.
fn report(done: &[(Kind, Outcome)]) -> usize {
    let mut kinds: BTreeMap<Kind, BTreeMap<String, usize>> = BTreeMap::new();
    for (kind, outcome) in done {
        let text = match outcome {
            Outcome::Meaningless(proof) => format!("meaningless ({})", proof.text()),
            other => format!("{other:?}").to_lowercase(),
        };
        *kinds.entry(*kind).or_default().entry(text).or_default() += 1;
    }
    for (kind, outcomes) in kinds {
        let parts: Vec<String> = outcomes
            .iter()
            .map(|(outcome, count)| format!("{count} {outcome}"))
            .collect();
        println!("{:14}{}", format!("{kind:?}"), parts.join(", "));
    }
    done.iter().filter(|(_, outcome)| outcome.is_bad()).count()
}
