//! The steps that were made in a process: `--time` and `--verbose`.

use std::cell::RefCell;
use std::time::Duration;

thread_local! {
    // Each process is one thread's from start to end.
    static DONE: RefCell<Vec<(&'static str, Duration)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a step until its process is done with.
pub(crate) fn note(name: &'static str, took: Duration) {
    DONE.with_borrow_mut(|done| done.push((name, took)));
}

/// Prints the steps made in a process, and forgets them.
pub(crate) fn print(pid: i32, all: Duration, timed: bool, verbose: bool) {
    let done = DONE.take();
    if verbose {
        let names: Vec<&str> = done.iter().map(|(name, _)| *name).collect();
        anstream::eprintln!("process {pid}: {}", names.join(", "));
    }
    if timed {
        let known: Duration = done.iter().map(|(_, took)| *took).sum();
        let rest = [("everything else", all.saturating_sub(known)), ("all", all)];
        for (name, took) in done.iter().chain(&rest) {
            let took = took.as_secs_f64() * 1e3;
            anstream::eprintln!("{took:>9.3} ms  process {pid}: {name}");
        }
    }
}
