//! A small program whose threads look at the clock: what an apply takes from
//! threads that it does not borrow, and how long threads stand when all must.

pub(super) mod program;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::promise::{Amount, Promises, median};
use super::windows::{Waits, Window};
use crate::invivo::Invivo;
use crate::load::Histogram;
use crate::workspace::Workspace;
use crate::{paint, process};
use program::Running;

pub(super) const NAME: &str = "price-fix";
const WINDOW: Duration = Duration::from_millis(60);
const OLD_PRICE: u32 = 1999;
const NEW_PRICE: u32 = 1899;

/// The program's two builds and the patch between them.
#[derive(Debug)]
pub(crate) struct Spin {
    pub(super) base: PathBuf,
    pub(super) patch: PathBuf,
}

impl Spin {
    /// Builds the program without and with the fix, and the patch.
    pub(crate) fn build(workspace: &Workspace, invivo: &Invivo) -> Result<Self> {
        let work = workspace.fresh_folder("bench/spin")?;
        let base = compile(workspace, &work, "base", &["spin.c"])?;
        let fixed = compile(workspace, &work, "fixed", &["spin.c", "-DFIXED"])?;
        let patch = work.join("patch");
        invivo.make_patch(&base, &fixed, &patch, NAME, "bench")?;
        Ok(Self { base, patch })
    }

    /// The longest gap of threads that spin, in windows with and without an apply, in programs
    /// with so many threads, all others of which sleep; in windows with nothing it is the noise.
    pub(crate) fn gaps(
        &self,
        invivo: &Invivo,
        rounds: usize,
        crowds: &[usize],
        promises: &mut Promises,
    ) -> Result<()> {
        // One processor is left to the tool: what is measured is what the apply
        // does to threads, not how the machine is shared.
        let processors = thread::available_parallelism()?.get();
        let spinners = processors.saturating_sub(1).max(1);
        let mut stops = Vec::new();
        for threads in crowds {
            let spinners = spinners.min(*threads);
            let sleepers = threads - spinners;
            println!(
                "\n{}",
                paint::bold(format!(
                    "{} that only looks at the clock, {} that sleep",
                    paint::of(spinners as u64, "thread"),
                    sleepers,
                ))
            );
            let mut running = Running::start(&self.base, spinners, sleepers)?;
            for quiescent in [false, true] {
                let beyond = self.gaps_of(invivo, &mut running, rounds, quiescent, &mut stops)?;
                if !quiescent {
                    promises.measured(
                        format!(
                            "longest gap of a thread not borrowed, of {threads}, beyond no apply"
                        ),
                        Amount::Micros(500.0),
                        Amount::Micros(beyond),
                    );
                }
            }
        }
        promises.measured(
            "time that all its threads stood still for an apply, longest",
            Amount::Micros(0.0),
            Amount::Micros(stops.iter().copied().max().unwrap_or(0) as f64),
        );
        Ok(())
    }

    /// The median longest gap in windows with an apply, less that in windows with nothing, in
    /// microseconds. `stops` gets how long all threads stood, where none should.
    fn gaps_of(
        &self,
        invivo: &Invivo,
        running: &mut Running,
        rounds: usize,
        quiescent: bool,
        stops: &mut Vec<u64>,
    ) -> Result<f64> {
        let (mut own, mut all) = (Waits::default(), Waits::default());
        for _ in 0..rounds {
            let mut applied = false;
            for window in Window::ROUND {
                running.ask()?;
                match window {
                    Window::Quiet => (),
                    Window::Plan => invivo.plan(&self.patch, running.pid())?,
                    Window::Apply if quiescent => {
                        invivo.apply_quiescent(&self.patch, running.pid())?;
                        applied = true;
                    }
                    Window::Apply => {
                        let outcome = invivo.apply(&self.patch, running.pid())?;
                        stops.push(outcome.stopped_us);
                        applied = true;
                    }
                    Window::Revert => {
                        invivo.revert(NAME, running.pid())?;
                        applied = false;
                    }
                }
                thread::sleep(WINDOW);
                let expected = if applied { NEW_PRICE } else { OLD_PRICE };
                let seen = running.ask_until(expected)?;
                ensure!(
                    seen.price == expected,
                    "the price is {}, not {expected}",
                    seen.price
                );
                own.add(window, single(seen.own_gap));
                all.add(window, single(seen.gap));
            }
        }
        let how = if quiescent { "quiescent" } else { "entry" };
        println!("      {how}, all gaps:");
        all.print();
        println!("      {how}, gaps in which the processor was not given to somebody else:");
        own.print();
        let (with, without) = (own.summary(Window::Apply), own.summary(Window::Quiet));
        Ok(with.typical - without.typical)
    }

    /// How long all threads stand when the stack of each is looked at.
    pub(crate) fn stops(
        &self,
        invivo: &Invivo,
        rounds: usize,
        promises: &mut Promises,
    ) -> Result<()> {
        println!(
            "\n{}",
            paint::bold("All stacks looked at: --consistency quiescent")
        );
        // The limits are the shortest stops of other tools with so many threads.
        for (threads, limit) in [(1, 900.0), (8, 4_000.0), (64, 9_400.0)] {
            let running = Running::start(&self.base, 0, threads - 1)?;
            let mut stops = Vec::new();
            for _ in 0..rounds {
                let outcome = invivo.apply_quiescent(&self.patch, running.pid())?;
                ensure!(outcome.stopped_us > 0, "nobody was stopped to be looked at");
                stops.push(outcome.stopped_us);
                invivo.revert(NAME, running.pid())?;
            }
            promises.measured(
                format!(
                    "stop of {}, median of {rounds}",
                    paint::of(threads as u64, "thread")
                ),
                Amount::Micros(limit),
                Amount::Micros(median(&stops)),
            );
        }
        Ok(())
    }
}

/// Builds one of the programs beside `price.c`.
pub(super) fn compile(
    workspace: &Workspace,
    work: &Path,
    name: &str,
    arguments: &[&str],
) -> Result<PathBuf> {
    let program = work.join(name);
    let mut cc = Command::new("cc");
    cc.current_dir(workspace.root.join("xtask/programs"))
        .args(["-O2", "-g", "-fPIE", "-pie", "-pthread", "-Wall", "-Wextra"])
        .args(arguments)
        .args(["price.c", "-o"])
        .arg(&program);
    let output = process::capture(&mut cc, Duration::from_secs(60))?;
    ensure!(
        output.status.success(),
        "{name} does not build: {}",
        output.stderr
    );
    Ok(program)
}

/// A histogram of one duration.
fn single(duration: Duration) -> Histogram {
    let mut histogram = Histogram::default();
    histogram.note(duration);
    histogram
}
