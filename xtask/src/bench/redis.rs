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

const CLIENTS: usize = 8;
const WINDOW: Duration = Duration::from_millis(120);

/// Applies and reverts under load.
pub(crate) fn run(
    workspace: &Workspace,
    invivo: &Invivo,
    case: &dyn Case,
    patch: &Path,
    rounds: usize,
    promises: &mut Promises,
) -> Result<()> {
    println!(
        "\n{}",
        paint::bold("Redis, 4 io-threads, clients in a tight loop")
    );
    let run = workspace.fresh_folder("bench/redis")?;
    let base = workspace.corpus.join(case.name()).join("base");
    let mut server = case.start(&base, &run)?;
    let mut clients = Clients::default();
    for number in 0..CLIENTS {
        let port = server.port;
        clients.start(format!("client {number}"), move |client| {
            redis::work(client, port, number, 1)
        })?;
    }
    thread::sleep(Duration::from_secs(1));

    let mut windows = vec![None];
    let (mut applies, mut reverts, mut programs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut visits, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut applied = false;
        for window in Window::ROUND {
            clients.meter.next_phase();
            windows.push(Some(window));
            let begun = Instant::now();
            match window {
                Window::Quiet => (),
                Window::Plan => invivo.plan(patch, server.pid())?,
                Window::Switch => {
                    let outcome = if applied {
                        invivo.revert(case.name(), server.pid())
                    } else {
                        invivo.apply(patch, server.pid())
                    };
                    let outcome = outcome.with_context(|| clients.meter.errors().join("; "))?;
                    let times = if applied { &mut reverts } else { &mut applies };
                    times.push(outcome.wall_us);
                    programs.push(outcome.program_us);
                    visits.push(outcome.visited_us);
                    stops.push(outcome.stopped_us);
                    applied = !applied;
                }
            }
            thread::sleep(WINDOW.saturating_sub(begun.elapsed()));
            // What is on its way belongs to no window of its own kind alone.
            clients.meter.next_phase();
            windows.push(None);
            thread::sleep(Duration::from_millis(10));
        }
    }
    ensure!(server.alive(), "Redis died");
    let meter = std::sync::Arc::clone(&clients.meter);
    let records = clients.finish();
    let wrong: u64 = records.iter().map(|record| record.wrong).sum();
    ensure!(
        wrong == 0 && meter.errors().is_empty(),
        "{wrong} wrong answers; {}",
        meter.errors().join("; ")
    );
    let mut waits = Waits::default();
    for (window, record) in windows.iter().zip(records) {
        if let Some(window) = window {
            waits.add(*window, record.latency);
        }
    }

    println!(
        "      {} answers, none wrong; median revert {}, program {}, one thread visited for {}, longest stop of all {}",
        paint::count(meter.answers()),
        paint::micros(median(&reverts) as u64),
        paint::micros(median(&programs) as u64),
        paint::micros(median(&visits) as u64),
        paint::micros(stops.iter().copied().max().unwrap_or(0)),
    );
    waits.print();
    promises.measured(
        format!("apply to a loaded Redis, median of {}", applies.len()),
        Amount::Micros(20_000.0),
        Amount::Micros(median(&applies)),
    );
    let (with, without) = (waits.summary(Window::Switch), waits.summary(Window::Quiet));
    promises.measured(
        "longest stall of any client, median window, beyond no apply",
        Amount::Micros(1_000.0),
        Amount::Micros(with.typical - without.typical),
    );
    promises.measured(
        "p99.9 of all clients' waits, beyond no apply",
        Amount::Micros(1_000.0),
        Amount::Micros(with.p999 - without.p999),
    );
    Ok(())
}
