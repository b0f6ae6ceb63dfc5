//! `rounds PID COUNT FIRST SECOND`: applies the first patch, replaces it by the second and reverts,
//! so many times, as `invivo apply` and `invivo revert` would. A run of the tool that does several of
//! these is what happens here: the process is opened anew only before each tenth round.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() {
    use std::time::{Duration, Instant};

    use invivo_apply::hpat::{apply, list, revert};
    use invivo_windows::{Access, Process};

    let words: Vec<String> = std::env::args().skip(1).collect();
    let [pid, count, first, second] = &words[..] else {
        panic!("rounds PID COUNT FIRST SECOND");
    };
    let pid = pid.parse().expect("a number");
    let count: u32 = count.parse().expect("a number");
    let open = || Process::open(pid, Access::Write { patience: 10_000 }).expect("the process");
    let (mut left, mut longest, mut stopped) = (0, Duration::ZERO, Duration::ZERO);
    let begin = Instant::now();
    let mut process = None;
    for round in 0..count {
        if round % 10 == 0 {
            // The one before gives its turn back first.
            drop(process.take());
        }
        let process = process.get_or_insert_with(open);
        for patch in [first, second] {
            let start = Instant::now();
            let done = apply(process, patch, "rounds");
            let done = done.unwrap_or_else(|error| panic!("round {round}: {error}"));
            longest = longest.max(start.elapsed());
            stopped = stopped.max(done.stopped());
        }
        let done = revert(process, false, "rounds");
        let done = done.unwrap_or_else(|error| panic!("round {round}: {error}"));
        left += done.iter().filter(|one| one.outcome.left).count();
    }
    drop(process);
    let live = list(&open()).expect("the records");
    let live = live.iter().filter(|one| one.record.sequence != 0).count();
    println!(
        "{count} rounds: {live} live, {left} left, stopped {stopped:?}; in {:?}, the longest apply \
         {longest:?}",
        begin.elapsed()
    );
}
