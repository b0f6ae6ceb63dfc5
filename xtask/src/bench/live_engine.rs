//! The engine that makes a patch live: what it takes from the threads of a program,
//! beside the least that any tool could take, measured in the same rounds.

mod floor;

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::promise::{Amount, Promises, median, p99};
use super::spin::program::Running;
use super::spin::{NAME, Spin, compile};
use crate::invivo::Invivo;
use crate::paint;
use crate::workspace::Workspace;

/// Threads of the program, and the limit for a stop in which all stacks are looked at, in
/// microseconds; none where nothing is promised.
const CROWDS: [(usize, Option<f64>); 4] = [
    (1, Some(200.0)),
    (8, Some(500.0)),
    (64, Some(2_000.0)),
    (1_000, None),
];
/// Processes of one program that are patched by one command.
const PROCESSES: usize = 200;
/// How often all of them are.
const BULK_RUNS: usize = 7;
/// How often calls are measured without a patch, through one, and through a second one.
const CALL_ROUNDS: usize = 6;
/// A difference below this many nanoseconds for each call cannot be measured.
const NOISE: f64 = 0.1;

/// Measures all of it.
pub(super) fn run(
    workspace: &Workspace,
    invivo: &Invivo,
    rounds: usize,
    promises: &mut Promises,
) -> Result<()> {
    let spin = Spin::build(workspace, invivo)?;
    for (threads, limit) in CROWDS {
        let crowd = crowd(&spin, invivo, rounds, (threads, limit), promises);
        promises.part("stops", crowd);
    }
    let gaps = spin.gaps(
        invivo,
        rounds,
        &CROWDS.map(|(threads, _)| threads),
        promises,
    );
    promises.part("gaps", gaps);
    let bulk = bulk(&spin, invivo, promises);
    promises.part("many processes", bulk);
    let calls = calls(workspace, invivo, promises);
    promises.part("calls", calls);
    Ok(())
}

/// Both ways to switch, and the floor, in turns.
fn crowd(
    spin: &Spin,
    invivo: &Invivo,
    rounds: usize,
    (threads, limit): (usize, Option<f64>),
    promises: &mut Promises,
) -> Result<()> {
    let name = paint::of(threads as u64, "thread");
    println!("\n{}", paint::bold(&name));
    let running = Running::start(&spin.base, 0, threads - 1)?;
    // The first apply makes the patch's memory, which the later ones find.
    invivo.apply(&spin.patch, running.pid())?;
    invivo.revert(NAME, running.pid())?;
    let [
        mut floor,
        mut stops,
        mut visits,
        mut still,
        mut wall,
        mut program,
    ] = [const { Vec::new() }; 6];
    for _ in 0..rounds {
        floor.push(floor::stop_and_write(running.pid())?);
        let entry = invivo.apply(&spin.patch, running.pid())?;
        visits.push(entry.visited_us);
        still.push(entry.stopped_us);
        wall.push(entry.wall_us);
        program.push(entry.program_us);
        invivo.revert(NAME, running.pid())?;
        let quiescent = invivo.apply_quiescent(&spin.patch, running.pid())?;
        ensure!(quiescent.stopped_us > 0, "nobody was stopped");
        stops.push(quiescent.stopped_us);
        invivo.revert(NAME, running.pid())?;
    }
    let least = median(&floor).max(1.0);
    let line = |what: &str, values: &[u64]| {
        println!(
            "      {what:48} least {:>7} µs, median {:>7.0} µs, p99 {:>7.0} µs, {:>6.2} × the floor",
            values.iter().min().copied().unwrap_or(0),
            median(values),
            p99(values),
            median(values) / least,
        );
    };
    line("floor: all stop, two bytes, all go on", &floor);
    line("all stand, quiescent", &stops);
    line("all stand, entry", &still);
    line("one is held, entry", &visits);
    line("the tool, from its first look to its end", &wall);
    line("the tool, from its start to its exit", &program);
    if let Some(limit) = limit {
        promises.measured(
            format!("{name} stand, quiescent, median"),
            Amount::Micros(limit),
            Amount::Micros(median(&stops)),
        );
    }
    promises.measured(
        format!("{name} stand, entry, longest"),
        Amount::Micros(0.0),
        Amount::Micros(still.iter().copied().max().unwrap_or(0) as f64),
    );
    promises.measured(
        format!("one of {name} is held, entry, median"),
        Amount::Micros(150.0),
        Amount::Micros(median(&visits)),
    );
    if threads == 1 {
        promises.measured(
            "the tool, from its start to its exit, median",
            Amount::Micros(2_000.0),
            Amount::Micros(median(&program)),
        );
    }
    Ok(())
}

/// Many processes, one command.
fn bulk(spin: &Spin, invivo: &Invivo, promises: &mut Promises) -> Result<()> {
    println!("\n{}", paint::bold(format!("{PROCESSES} processes")));
    let nobody = ["0".to_owned(), "0".to_owned()];
    let mut each = Vec::new();
    for _ in 0..BULK_RUNS {
        // New ones each time: those that had the patch before have its memory already.
        let processes: Vec<Running> = (0..PROCESSES)
            .map(|_| Running::launch(&spin.base, &nobody))
            .collect::<Result<_>>()?;
        let begun = Instant::now();
        let applied = invivo.apply_all(&spin.patch)?;
        let took = begun.elapsed();
        ensure!(
            applied == processes.len(),
            "{applied} of {PROCESSES} are patched"
        );
        each.push(u64::try_from(took.as_micros())? / PROCESSES as u64);
    }
    println!(
        "      for each process, {BULK_RUNS} runs: least {} µs, median {:.0} µs, longest {:.0} µs",
        each.iter().min().copied().unwrap_or(0),
        median(&each),
        p99(&each),
    );
    promises.measured(
        "the tool, for each process, median",
        Amount::Micros(500.0),
        Amount::Micros(median(&each)),
    );
    Ok(())
}

/// What a call costs before a patch, through one, and through one that replaced another.
fn calls(workspace: &Workspace, invivo: &Invivo, promises: &mut Promises) -> Result<()> {
    println!("\n{}", paint::bold("A call"));
    let work = workspace.fresh_folder("bench/calls")?;
    let base = compile(workspace, &work, "base", &["calls.c"])?;
    let patch = |name: &str, flag: &str| {
        let fixed = compile(workspace, &work, name, &["calls.c", flag])?;
        let patch = work.join(format!("{name}.invivo"));
        invivo.make_patch(&base, &fixed, &patch, name, "bench")?;
        anyhow::Ok(patch)
    };
    let (first, second) = (patch("first", "-DFIXED=1")?, patch("second", "-DFIXED=2")?);
    let mut running = Running::launch(&base, &[])?;
    let pid = running.pid();
    let mut nanos = |expected: &str| -> Result<f64> {
        let answer = running.answer()?;
        let (picos, price) = answer.split_once(' ').context("half an answer")?;
        ensure!(price == expected, "the price is {price}, not {expected}");
        Ok(picos.parse::<f64>()? / 1_000.0)
    };
    // How fast the processor runs changes meanwhile, so the least of some rounds counts.
    let [mut direct, mut patched, mut replaced] = [f64::INFINITY; 3];
    for _ in 0..CALL_ROUNDS {
        direct = direct.min(nanos("1999")?);
        invivo.apply(&first, pid)?;
        patched = patched.min(nanos("1899")?);
        invivo.replace(&second, pid)?;
        replaced = replaced.min(nanos("1799")?);
        invivo.revert("second", pid)?;
    }
    println!(
        "      with the loop around it: direct {direct:.2} ns, patched {patched:.2} ns, patched twice {replaced:.2} ns"
    );
    promises.measured(
        "a call through a patch, beyond a direct one",
        Amount::Nanos(0.7),
        Amount::Nanos(patched - direct),
    );
    promises.measured(
        "a call through a patch that replaced one, beyond the first",
        Amount::Nanos(NOISE),
        Amount::Nanos(replaced - patched),
    );
    Ok(())
}
