//! What a person sees of the demo: one line for each quarter of a second, what
//! was done in between, and the sum at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::Board;
use crate::claims::Claims;
use crate::invivo::Outcome;
use crate::load::{Histogram, Record};
use crate::paint;

const TICK: Duration = Duration::from_millis(250);
const WIDTH: u64 = 36;

/// The lines that appear while the server works.
pub(crate) struct Timeline {
    begun: Instant,
    ended: Arc<AtomicBool>,
    printer: JoinHandle<()>,
}

impl Timeline {
    /// Starts to print.
    pub(crate) fn start(board: &Arc<Board>) -> Self {
        let begun = Instant::now();
        let ended = Arc::new(AtomicBool::new(false));
        println!(
            "  {}  {}  {} leaks  {} gives nothing",
            paint::dim("   time   answers/s"),
            paint::dim("a heartbeat that lies:"),
            paint::bad("░"),
            paint::good("█"),
        );
        let printer = {
            let (board, ended) = (Arc::clone(board), Arc::clone(&ended));
            thread::spawn(move || tick(begun, &board, &ended))
        };
        Self {
            begun,
            ended,
            printer,
        }
    }

    /// Prints what was done.
    pub(crate) fn event(&self, text: &str) {
        println!(
            "  {:5.2} s  {}",
            self.begun.elapsed().as_secs_f64(),
            paint::event(format!("── {text} ──"))
        );
    }

    /// Prints the last line.
    pub(crate) fn end(self) {
        self.ended.store(true, Ordering::SeqCst);
        if self.printer.join().is_err() {
            println!("  the timeline broke off");
        }
    }
}

fn tick(begun: Instant, board: &Board, ended: &AtomicBool) {
    let read =
        || [&board.answers, &board.old, &board.new].map(|counter| counter.load(Ordering::Relaxed));
    let mut last = read();
    let mut last_at = begun;
    let mut most = 1;
    while !ended.load(Ordering::SeqCst) {
        thread::sleep(TICK);
        let at = Instant::now();
        let now = read();
        let ms = u64::try_from((at - last_at).as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let [answers, old, new] = [0, 1, 2].map(|kind: usize| {
            let count = |all: &[u64; 3]| all.get(kind).copied().unwrap_or(0);
            (count(&now) - count(&last)) * 1000 / ms
        });
        most = most.max(old + new);
        let share = |part: u64| usize::try_from((part * WIDTH).div_ceil(most)).unwrap_or(0);
        let lies = (old + new).max(1);
        let verdict = match (old, new) {
            (0, 0) => paint::bad("no answers"),
            (_, 0) => paint::bad("all leak"),
            (0, _) => paint::good("none leaks"),
            _ => format!("{} % leak", old * 100 / lies),
        };
        let bar = format!(
            "{}{}",
            paint::bad("░".repeat(share(old))),
            paint::good("█".repeat(share(new)))
        );
        // Colour codes have no width of their own, so the bar is filled by hand.
        let fill = usize::try_from(WIDTH + 2)
            .unwrap_or(0)
            .saturating_sub(share(old) + share(new));
        println!(
            "  {:5.2} s  {:>9}  {bar}{}{verdict}, longest pause {}",
            (at - begun).as_secs_f64(),
            paint::count(answers),
            " ".repeat(fill),
            paint::micros(board.longest_us.swap(0, Ordering::Relaxed)),
        );
        (last, last_at) = (now, at);
    }
}

/// Prints the sum of the run; `true` when all of it was as it must be.
pub(crate) fn summary(
    board: &Board,
    records: &[Record],
    errors: &[String],
    alive: bool,
    outcomes: &[(&str, Outcome)],
) -> bool {
    let mut claims = Claims::default();
    let steps = ["before the patch", "patched", "reverted", "patched again"];
    for (step, (olds, news)) in steps.iter().zip(board.phases.iter().step_by(2)) {
        let (old, new) = (olds.load(Ordering::Relaxed), news.load(Ordering::Relaxed));
        let (all, other, claim) = if step.starts_with("patched") {
            (new, old, "not one leaked")
        } else {
            (old, new, "all leaked")
        };
        claims.add(
            format!("{step}: {} lies, {claim}", paint::count(old + new)),
            all > 0 && other == 0,
        );
    }
    for (number, (expected, outcome)) in outcomes.iter().enumerate() {
        claims.add(
            format!("step {}: {expected}", number + 1),
            outcome.state == *expected,
        );
    }
    let answers: u64 = records.iter().map(|record| record.answers).sum();
    let wrong: u64 = records.iter().map(|record| record.wrong).sum();
    errors
        .iter()
        .for_each(|error| println!("  {}", paint::bad(error)));
    claims.add(
        format!(
            "{} answers in all: {wrong} wrong, {} connections failed",
            paint::count(answers),
            errors.len()
        ),
        wrong == 0 && errors.is_empty(),
    );
    claims.add("the process is the one that was started", alive);

    let (mut quiet, mut switching) = (Histogram::default(), Histogram::default());
    for (phase, record) in records.iter().enumerate() {
        let all = if phase % 2 == 0 {
            &mut quiet
        } else {
            &mut switching
        };
        all.add(&record.latency);
    }
    println!("\n{}\n", paint::bold("What was seen"));
    claims.print();
    println!(
        "\n  The longest pause of any client: {} while the patch went in or out, {} at all other times.",
        paint::micros(switching.longest_us()),
        paint::micros(quiet.longest_us()),
    );
    claims.hold()
}
