//! Sends each payload that a test wrote, and kept, to the loader of each real hypervisor that it may be
//! for, and holds the answers against the predictions.
//!
//! What is expected to do harm once it is there is only uploaded. What may do harm when it is uploaded has a
//! hypervisor of its own, which may crash: that is what was expected of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use invivo_format::livepatch::{Effect, Hypervisor as Symbols, Options, predict};
use xen_tests::held::{Held, hold, upload};
use xen_tests::{Answer, End, Hypervisor, Machine, Script};

/// Who has to have left payloads here, and how many at least: else something was not run, or keeps nothing.
const WRITERS: &[(&str, usize)] = &[
    ("invivo-cli.objects", 2),
    ("invivo-cli.payload", 5),
    ("invivo-format.livepatch_predict", 200),
    ("invivo-format.livepatch_round_trip", 400),
    ("invivo-format.livepatch_splice", 1),
    ("xen-tests.command_line", 4),
    ("xen-tests.lifecycle", 8),
    ("xen-tests.matrix", 100),
    ("xen-tests.objects", 4),
    ("xen-tests.signed", 6),
    ("xen-tests.source", 7),
    ("xen-tests.splice", 4),
    ("xen-tests.trace", 2),
];

/// So many go into one run of a hypervisor.
const AT_ONCE: usize = 300;
/// So many that may harm it; those behind one that did are asked for anew.
const FEW_AT_ONCE: usize = 40;
/// More than a hypervisor takes to crash.
const LIMIT: Duration = Duration::from_secs(30);

/// What is done in one run of a hypervisor.
enum Job<'h> {
    /// They live through all that can be done to them.
    Lives(&'h Hypervisor, Vec<Held>),
    /// They are uploaded and forgotten.
    Uploads(&'h Hypervisor, Vec<Held>),
    /// They are uploaded, until one is not refused.
    Harms(&'h Hypervisor, VecDeque<Held>),
}

/// What came of all of them.
#[derive(Default)]
struct Sum {
    lived: usize,
    uploaded: usize,
    crashed: usize,
    survived: usize,
    refused: usize,
    wrong: Vec<String>,
}

fn main() -> Result<()> {
    let begun = Instant::now();
    let named: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let payloads = match &named[..] {
        [folder] if folder.is_dir() => kept(folder)?,
        [_, ..] => read(named)?,
        [] => bail!("usage: loader FOLDER, with what all tests kept, or loader PAYLOAD..."),
    };
    let files = Hypervisor::all()?;
    let ids: Vec<Vec<u8>> = files
        .iter()
        .map(Hypervisor::build_id)
        .collect::<Result<_>>()?;
    let mut jobs = VecDeque::new();
    let mut sent = BTreeSet::new();
    let mut wanted = 0;
    for (xen, id) in files.iter().zip(&ids) {
        let others = ids.iter().filter(|other| *other != id);
        let others: Vec<&Vec<u8>> = others.collect();
        let is_for =
            |file: &[u8]| !others.iter().any(|other| holds(file, other)) || holds(file, id);
        let own: Vec<(&String, &Vec<u8>)> =
            payloads.iter().filter(|(_, file)| is_for(file)).collect();
        sent.extend(own.iter().map(|(name, _)| *name));
        wanted += own.len();
        plan(xen, &own, &mut jobs)?;
    }
    ensure!(sent.len() == payloads.len(), "some are for no hypervisor");
    let sum = work(jobs)?;
    let done = sum.lived + sum.uploaded + sum.crashed + sum.survived + sum.refused;
    println!(
        "{} payloads of tests, {done} times sent to a real loader in {:.0?}: {} lived, {} only uploaded, \
         {} refused before their harm, {} crashed the hypervisor, {} harmed it without a crash",
        payloads.len(),
        begun.elapsed(),
        sum.lived,
        sum.uploaded,
        sum.refused,
        sum.crashed,
        sum.survived,
    );
    ensure!(done == wanted, "{done} of {wanted} were sent");
    let wrong = sum.wrong;
    ensure!(
        wrong.is_empty(),
        "{} are otherwise than predicted\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

fn holds(file: &[u8], id: &[u8]) -> bool {
    file.windows(id.len()).any(|bytes| bytes == id)
}

/// All that is kept in the folder, if all who write some wrote as many as they should.
fn kept(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let listed =
        fs::read_dir(folder).with_context(|| format!("no payloads: {}", folder.display()))?;
    let mut paths = listed
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (writer, _) = name.rsplit_once('-').with_context(|| name.to_string())?;
        *counts.entry(writer.to_owned()).or_default() += 1;
    }
    for (writer, least) in WRITERS {
        let count = counts.remove(*writer).unwrap_or_default();
        ensure!(
            count >= *least,
            "{writer} left {count} payloads, not {least}: it was not run, or does not keep them"
        );
        println!("{writer}: {count}");
    }
    if let Some((writer, _)) = counts.first_key_value() {
        bail!("{writer} is not known to write payloads; tell how many it leaves");
    }
    read(paths)
}

/// The files by their names; those of the same bytes once.
fn read(paths: Vec<PathBuf>) -> Result<BTreeMap<String, Vec<u8>>> {
    let (mut payloads, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for path in paths {
        let file = fs::read(&path).with_context(|| path.display().to_string())?;
        if seen.insert(file.clone()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            payloads.insert(name.into_owned(), file);
        }
    }
    Ok(payloads)
}

/// What is to be done with these payloads on a hypervisor.
fn plan<'h>(
    xen: &'h Hypervisor,
    own: &[(&String, &Vec<u8>)],
    jobs: &mut VecDeque<Job<'h>>,
) -> Result<()> {
    let symbols = fs::read(xen.symbols())?;
    let symbols = Symbols::parse(&symbols).map_err(anyhow::Error::msg)?;
    let options = Options {
        version: xen.version.parse().map_err(anyhow::Error::msg)?,
        xen: Some(&symbols),
        running: None,
        loaded: &[],
    };
    let (mut lives, mut uploads, mut harms) = (Vec::new(), Vec::new(), Vec::new());
    for (name, file) in own {
        let prediction = predict(file, &options);
        let mut rules = prediction.findings.iter().map(|found| found.rule);
        let harms_upload = rules.any(|rule| rule.effect(options.version) == Effect::Harm("upload"));
        let held = Held {
            name: format!("Xen {}, {name}", xen.version),
            file: (*file).clone(),
            before: Vec::new(),
            prediction,
        };
        match (harms_upload, held.harms()) {
            (true, _) => harms.push(held),
            (false, true) => uploads.push(held),
            (false, false) => lives.push(held),
        }
    }
    let mut add = |all: Vec<Held>, most: usize, job: &dyn Fn(Vec<Held>) -> Job<'h>| {
        let mut all = all.into_iter().peekable();
        while all.peek().is_some() {
            jobs.push_back(job(all.by_ref().take(most).collect()));
        }
    };
    add(harms, FEW_AT_ONCE, &|part| Job::Harms(xen, part.into()));
    add(lives, AT_ONCE, &|part| Job::Lives(xen, part));
    add(uploads, AT_ONCE, &|part| Job::Uploads(xen, part));
    Ok(())
}

/// Does all of it, as many at a time as there are processors.
fn work(jobs: VecDeque<Job<'_>>) -> Result<Sum> {
    let (jobs, sum) = (Mutex::new(jobs), Mutex::new(Sum::default()));
    let next = || jobs.lock().ok().and_then(|mut jobs| jobs.pop_front());
    let worker = || -> Result<()> {
        while let Some(job) = next() {
            let part = done(job)?;
            let mut sum = sum.lock().ok().context("another job failed")?;
            sum.lived += part.lived;
            sum.uploaded += part.uploaded;
            sum.crashed += part.crashed;
            sum.survived += part.survived;
            sum.refused += part.refused;
            sum.wrong.extend(part.wrong);
        }
        Ok(())
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(worker)).collect();
        let ended = workers.into_iter().map(|one| {
            let ended = one.join();
            ended.unwrap_or_else(|_| bail!("a job did not come to its end"))
        });
        // Each is waited for, whatever became of the others.
        let ended: Vec<Result<()>> = ended.collect();
        ended.into_iter().collect::<Result<()>>()
    })?;
    sum.into_inner().ok().context("a job failed")
}

fn done(job: Job<'_>) -> Result<Sum> {
    match job {
        Job::Lives(xen, all) => Ok(Sum {
            lived: all.len(),
            wrong: hold(xen, &all)?,
            ..Sum::default()
        }),
        Job::Uploads(xen, all) => uploads(xen, &all),
        Job::Harms(xen, all) => harms(xen, all),
    }
}

/// Uploads and forgets each.
fn uploads(xen: &Hypervisor, all: &[Held]) -> Result<Sum> {
    let mut script = Script::new();
    let steps: Vec<_> = (all.iter().zip(0..))
        .map(|(held, number)| {
            let step = upload(&mut script, &format!("case{number}"), &held.file);
            script.unload(&format!("case{number}"));
            step
        })
        .collect();
    let run = Machine::of(xen).limit(LIMIT).run(&script)?;
    let wrong = all.iter().zip(steps);
    let wrong = wrong.filter_map(|(held, step)| held.uploaded(run.get(step)));
    Ok(Sum {
        uploaded: all.len(),
        wrong: wrong.collect(),
        ..Sum::default()
    })
}

/// Uploads each, and boots anew behind each that was not refused.
fn harms(xen: &Hypervisor, mut all: VecDeque<Held>) -> Result<Sum> {
    let mut sum = Sum::default();
    while !all.is_empty() {
        let mut script = Script::new();
        for (held, number) in all.iter().zip(0..) {
            upload(&mut script, &format!("case{number}"), &held.file);
        }
        let run = Machine::of(xen).limit(LIMIT).run(&script)?;
        let refused = run.answers.iter();
        let refused = refused.take_while(|answer| !answer.is_done()).count();
        for (held, answer) in all.drain(..refused.min(all.len())).zip(&run.answers) {
            sum.refused += 1;
            let first = held
                .prediction
                .upload()
                .and_then(|(_, effect)| effect.errno());
            // What harms it there may be refused here, but not as something else than was foreseen.
            if first.is_some() {
                sum.wrong.extend(held.uploaded(Some(answer)));
            }
        }
        let Some(held) = all.pop_front() else {
            continue;
        };
        match (run.answers.get(refused), &run.end) {
            (answer @ Some(Answer::Done { .. }), _) => {
                sum.survived += 1;
                let expected = held.prediction.upload();
                if expected.is_some_and(|(_, effect)| effect.errno().is_some()) {
                    sum.wrong.extend(held.uploaded(answer));
                }
            }
            (None, End::Crashed(_) | End::TimedOut | End::Stopped) => sum.crashed += 1,
            (answer, end) => bail!("{}: {answer:?}, {end:?}", held.name),
        }
    }
    Ok(sum)
}
