//! Redis under load: how long an apply takes, and who waits for it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::promise::{Amount, Promises, median};
use super::windows::{Waits, Window};
use crate::invivo::Invivo;
use crate::live::Case;
use crate::load::{Clients, redis};
use crate::paint;
use crate::workspace::Workspace;

/// One connection leaves a processor to the tool even where there are only two, so
/// what is seen is what the apply does, not how the machine is shared.
const ONE: usize = 1;
/// Redis wakes its io-threads for two connections each, and they spin: on a machine
/// with fewer processors than threads that alone makes stalls of 30 ms, in which
/// nothing else can be seen. So stalls are looked at with fewer connections.
const FEW: usize = 6;
/// Enough to keep all io-threads busy.
const MANY: usize = 16;
const WINDOW: Duration = Duration::from_millis(120);
const BREAK: Duration = Duration::from_millis(40);

/// What is measured on.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) invivo: &'a Invivo,
    pub(crate) case: &'a dyn Case,
    pub(crate) patch: &'a Path,
}

/// What was seen of some rounds.
#[derive(Debug, Default)]
struct Seen {
    applies: Vec<u64>,
    reverts: Vec<u64>,
    programs: Vec<u64>,
    visits: Vec<u64>,
    apply_stops: Vec<u64>,
    revert_stops: Vec<u64>,
    waits: Waits,
}

impl Seen {
    /// The median of the longest waits in windows of a kind.
    fn typical(&self, window: Window) -> f64 {
        self.waits.summary(window).typical
    }
}

/// Applies and reverts under load, lighter and heavier.
pub(crate) fn run(subject: Subject, rounds: usize, promises: &mut Promises) {
    let one = measure(subject, ONE, rounds).map(|seen| one(&seen, promises));
    promises.part("Redis with one client", one);
    let few = measure(subject, FEW, rounds).map(|seen| few(&seen, promises));
    promises.part("Redis under load", few);
    let many = measure(subject, MANY, rounds).map(|seen| many(&seen, promises));
    promises.part("Redis with all io-threads busy", many);
}

fn one(seen: &Seen, promises: &mut Promises) {
    promises.measured(
        "longest stall of a client, median window, beyond no apply",
        Amount::Micros(1_000.0),
        Amount::Micros(seen.typical(Window::Apply) - seen.typical(Window::Quiet)),
    );
}

fn few(seen: &Seen, promises: &mut Promises) {
    promises.measured(
        format!(
            "apply to Redis under load, median of {}",
            seen.applies.len()
        ),
        Amount::Micros(20_000.0),
        Amount::Micros(median(&seen.applies)),
    );
    // Where no processor is idle, any program that is started makes somebody wait.
    // What the patching adds is the difference to a run that only plans.
    promises.measured(
        "longest stall of any of many, median window, beyond plan only",
        Amount::Micros(1_000.0),
        Amount::Micros(seen.typical(Window::Apply) - seen.typical(Window::Plan)),
    );
    let p999 = |window| seen.waits.summary(window).p999;
    promises.measured(
        "p99.9 of the waits of many clients, beyond no apply",
        Amount::Micros(1_000.0),
        Amount::Micros(p999(Window::Apply) - p999(Window::Quiet)),
    );
    promises.measured(
        "time that all threads stood still for an apply, longest",
        Amount::Micros(0.0),
        Amount::Micros(seen.apply_stops.iter().copied().max().unwrap_or(0) as f64),
    );
}

fn many(seen: &Seen, promises: &mut Promises) {
    promises.measured(
        format!(
            "apply to Redis with all io-threads busy, median of {}",
            seen.applies.len()
        ),
        Amount::Micros(20_000.0),
        Amount::Micros(median(&seen.applies)),
    );
}

fn measure(subject: Subject, connections: usize, rounds: usize) -> Result<Seen> {
    let Subject {
        workspace,
        invivo,
        case,
        patch,
    } = subject;
    println!(
        "\n{}",
        paint::bold(format!(
            "Redis with 4 io-threads, {} in a tight loop",
            paint::of(connections as u64, "client")
        ))
    );
    let run = workspace.fresh_folder("bench/redis")?;
    let base = workspace.corpus.join(case.name()).join("base");
    let mut server = case.start(&base, &run)?;
    let mut clients = Clients::default();
    for number in 0..connections {
        let port = server.port;
        clients.start(format!("client {number}"), move |client| {
            redis::work(client, port, number, 1)
        })?;
    }
    thread::sleep(Duration::from_secs(1));

    let mut seen = Seen::default();
    let mut windows = vec![None];
    for _ in 0..rounds {
        for window in Window::ROUND {
            clients.meter.next_phase();
            windows.push(Some(window));
            let begun = Instant::now();
            match window {
                Window::Quiet => (),
                Window::Plan => invivo.plan(patch, server.pid())?,
                Window::Apply => {
                    let outcome = invivo.apply(patch, server.pid());
                    let outcome = outcome.with_context(|| server.fate())?;
                    seen.applies.push(outcome.wall_us);
                    seen.apply_stops.push(outcome.stopped_us);
                    seen.programs.push(outcome.program_us);
                    seen.visits.push(outcome.visited_us);
                }
                Window::Revert => {
                    let outcome = invivo.revert(case.name(), server.pid());
                    let outcome = outcome.with_context(|| server.fate())?;
                    seen.reverts.push(outcome.wall_us);
                    seen.revert_stops.push(outcome.stopped_us);
                }
            }
            thread::sleep(WINDOW.saturating_sub(begun.elapsed()));
            // What is on its way between two windows belongs to neither.
            clients.meter.next_phase();
            windows.push(None);
            thread::sleep(BREAK);
        }
    }
    ensure!(server.alive(), server.fate());
    let meter = std::sync::Arc::clone(&clients.meter);
    let records = clients.finish();
    let wrong: u64 = records.iter().map(|record| record.wrong).sum();
    ensure!(
        wrong == 0 && meter.errors().is_empty(),
        "{wrong} wrong answers; {}",
        meter.errors().join("; ")
    );
    for (window, record) in windows.iter().zip(records) {
        if let Some(window) = window {
            seen.waits.add(*window, record.latency);
        }
    }
    println!(
        "      {} answers, none wrong; medians: the program that applies {}, one thread visited for {}; revert {}, all stopped for {}",
        paint::count(meter.answers()),
        paint::micros(median(&seen.programs) as u64),
        paint::micros(median(&seen.visits) as u64),
        paint::micros(median(&seen.reverts) as u64),
        paint::micros(median(&seen.revert_stops) as u64),
    );
    seen.waits.print();
    Ok(seen)
}
