//! Commands over every process that they concern, however many there are.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use invivo_apply::Outcome;
use invivo_linux::{Incarnation, last_processor, own_processor, with_one_deputy};
use invivo_patch::Judgement;

use crate::failure::{Failure, INTERRUPTED, NOT_NOW};
use crate::live::{ProcessOutcome, Run, ended, show};
use crate::output::Output;
use crate::unread;

/// More threads than that do not help: the work is the kernel's.
const MOST_WORKERS: usize = 8;
/// As many processes are one deputy's at most. It is started once for all of them.
const MOST_AT_ONCE: usize = 16;

/// What became of one process, and why it was not done.
type One = (Vec<ProcessOutcome>, Option<Failure>);

/// Does `work` in every process that `find` finds, and in those that start meanwhile, until
/// `find` finds no other one. `find` also tells how many processes it may not look at.
pub(crate) fn everywhere(
    run: &Run,
    timeout: f64,
    judgements: &[Judgement],
    output: &Output,
    mut find: impl FnMut() -> Result<(Vec<Incarnation>, usize), Failure>,
    work: impl Fn(i32) -> Result<Vec<Outcome>, Failure> + Sync,
) -> Result<u8, Failure> {
    let mut known: BTreeSet<Incarnation> = BTreeSet::new();
    let mut all: Vec<(Incarnation, One)> = Vec::new();
    let mut deadline = None;
    let mut cut_off = None;
    let unread = loop {
        let (found, unread) = find()?;
        let new: Vec<Incarnation> = found.into_iter().filter(|p| known.insert(*p)).collect();
        if new.is_empty() {
            break unread;
        }
        let others = all.len();
        all.extend(in_parallel(run, new, output, others, &work));
        if run.is_interrupted() {
            let text = "interrupted; not every process was reached";
            cut_off = Some(Failure::new(INTERRUPTED, text));
            break unread;
        }
        // The first walk takes as long as it takes.
        let limit = || Instant::now() + Duration::from_secs_f64(timeout);
        if Instant::now() > *deadline.get_or_insert_with(limit) {
            let text = "new processes of the program start faster than they are reached";
            cut_off = Some(Failure::new(NOT_NOW, text).hint("wait longer with --timeout SECONDS"));
            break unread;
        }
    };
    all.sort_by_key(|(process, _)| *process);
    let all = all.into_iter().map(|(_, one)| one);
    let all: Vec<One> = all
        .chain(cut_off.map(|failure| (Vec::new(), Some(failure))))
        .collect();
    let code = show(all, judgements, unread, output)?;
    if !output.quiet {
        unread::print(unread);
    }
    Ok(code)
}

/// Each process is one thread's from start to end: what traces a process is a thread. `others`
/// were done before.
fn in_parallel(
    run: &Run,
    processes: Vec<Incarnation>,
    output: &Output,
    others: usize,
    work: &(impl Fn(i32) -> Result<Vec<Outcome>, Failure> + Sync),
) -> Vec<(Incarnation, One)> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let workers = workers.min(MOST_WORKERS).min(processes.len());
    let place = |process: Incarnation| (last_processor(process.pid), process);
    let found = others + processes.len();
    let left = Mutex::new(processes.into_iter().map(place).collect());
    let done = Mutex::new(Vec::new());
    let all_of = |processes: &[Incarnation]| -> Vec<One> {
        let left = processes.iter().take_while(|_| !run.is_interrupted());
        left.map(|process| one(run, *process, work)).collect()
    };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let processes = next(&left, run, workers);
                    if processes.is_empty() {
                        break;
                    }
                    // Whoever killed the deputy may have done so in the middle; what was done then
                    // is found so.
                    let ones = with_one_deputy(|| all_of(&processes));
                    let ones = ones.unwrap_or_else(|_| all_of(&processes));
                    let Ok(mut done) = done.lock() else { break };
                    for (process, one) in processes.into_iter().zip(ones) {
                        let state = one.0.first().map_or("", |outcome| &outcome.state);
                        output.process_done(process.pid, state, others + done.len() + 1, found);
                        done.push((process, one));
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}

/// Processes that are still to be done, and where they ran last.
type Left = Vec<(Option<usize>, Incarnation)>;

/// The next ones: where the caller runs, if there are any. As many as one deputy is for, and not so
/// many that other workers have nothing to do in the end.
fn next(left: &Mutex<Left>, run: &Run, workers: usize) -> Vec<Incarnation> {
    let Ok(mut left) = left.lock() else {
        return Vec::new();
    };
    if run.is_interrupted() {
        return Vec::new();
    }
    let here = Some(own_processor());
    let number = left.len().div_ceil(2 * workers.max(1)).min(MOST_AT_ONCE);
    let mut next = Vec::new();
    while next.len() < number {
        let beside = left.iter().rposition(|(processor, _)| *processor == here);
        let Some(at) = beside.or(left.len().checked_sub(1)) else {
            break;
        };
        next.push(left.swap_remove(at).1);
    }
    next
}

fn one(
    run: &Run,
    process: Incarnation,
    work: &(impl Fn(i32) -> Result<Vec<Outcome>, Failure> + Sync),
) -> One {
    // Another one may have its number by now.
    if !process.is_still_there() {
        return (vec![ended(process.pid)], None);
    }
    let (mut outcomes, failure) = run.one(process.pid, work);
    // A process that ended, or became another program, is no failure: nothing of it is left.
    if failure.is_some() && !process.is_still_there() {
        for outcome in &mut outcomes {
            outcome.state = "ended".to_owned();
        }
        return (outcomes, None);
    }
    (outcomes, failure)
}
