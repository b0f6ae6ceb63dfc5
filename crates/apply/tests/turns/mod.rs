//! Two tools at one target take turns in every order, and each may die before each of
//! its steps. Each order is run anew: two threads, of which one at a time may go on.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use invivo_apply::{ApplyError, MemoryTarget, Target, TargetError};

use crate::gated::{Gate, Gated, Step};
use crate::scene::lost_hooks;

/// What a tool does once it has the lock.
pub(crate) type Tool<'t> = dyn Fn(&mut dyn Target) -> Result<(), ApplyError> + Sync + 't;

/// How often one tool may go on in the middle of the other's work where no lock keeps it out.
const INTERRUPTIONS: usize = 1;

/// What a tool asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Lock,
    Step(Step),
    Done,
}

/// What may happen next: a tool goes on, or dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    tool: usize,
    dies: bool,
}

/// Lets its tool go on when it is its turn.
struct Baton {
    tool: usize,
    asks: Sender<(usize, Ask)>,
    lives: Receiver<bool>,
    is_dead: Cell<bool>,
}

impl Baton {
    fn wait(&self, ask: Ask) -> Result<(), TargetError> {
        if !self.is_dead.get() {
            let asked = self.asks.send((self.tool, ask)).is_ok();
            let lives = asked && self.lives.recv().unwrap_or(false);
            self.is_dead.set(!lives);
        }
        if self.is_dead.get() {
            return Err(TargetError::NotNow("the tool is dead".to_owned()));
        }
        Ok(())
    }
}

impl Gate for Baton {
    fn step(&self, step: Step) -> Result<(), TargetError> {
        self.wait(Ask::Step(step))
    }
}

/// Runs `tools` in every order, beginning with copies of `begin`, and shows `check` what
/// each leaves. Returns how many orders there are.
pub(crate) fn explore(
    begin: &MemoryTarget,
    tools: [Box<Tool<'_>>; 2],
    has_lock: bool,
    check: impl Fn(&MemoryTarget) -> Result<(), String>,
) -> Result<usize, String> {
    // The choices of the last run: which one was taken, of how many.
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut orders = 0;
    loop {
        let (turns, after) = run(begin, &tools, has_lock, &mut path)?;
        orders += 1;
        let checked = catch_unwind(AssertUnwindSafe(|| check(&after)));
        checked
            .unwrap_or_else(|_| Err("a check failed".to_owned()))
            .map_err(|error| format!("{error}, after {turns:?}"))?;
        while path.last().is_some_and(|(taken, all)| taken + 1 == *all) {
            path.pop();
        }
        match path.last_mut() {
            Some((taken, _)) => *taken += 1,
            None => return Ok(orders),
        }
    }
}

/// Runs the order that begins with `path`, and adds the choices that come after it.
fn run(
    begin: &MemoryTarget,
    tools: &[Box<Tool<'_>>; 2],
    has_lock: bool,
    path: &mut Vec<(usize, usize)>,
) -> Result<(Vec<Turn>, MemoryTarget), String> {
    let shared = Arc::new(Mutex::new(begin.clone()));
    let (asks, asked) = channel();
    let turns = thread::scope(|scope| {
        let go: Vec<Sender<bool>> = (0..)
            .zip(tools)
            .map(|(number, tool)| {
                let (go, lives) = channel();
                let baton = Baton {
                    tool: number,
                    asks: asks.clone(),
                    lives,
                    is_dead: Cell::new(false),
                };
                let (shared, asks) = (Arc::clone(&shared), asks.clone());
                scope.spawn(move || {
                    if baton.wait(Ask::Lock).is_ok() {
                        // How it went is seen in what it leaves.
                        let _ = tool(&mut Gated::shared(shared, baton));
                    }
                    let _ = asks.send((number, Ask::Done));
                });
                go
            })
            .collect();
        direct(&shared, &asked, &go, has_lock, path)
    })?;
    let after = shared
        .lock()
        .map_err(|_| "a tool failed".to_owned())?
        .clone();
    Ok((turns, after))
}

/// Says whose turn it is until both are done.
fn direct(
    shared: &Mutex<MemoryTarget>,
    asked: &Receiver<(usize, Ask)>,
    go: &[Sender<bool>],
    has_lock: bool,
    path: &mut Vec<(usize, usize)>,
) -> Result<Vec<Turn>, String> {
    let mut waiting: [Option<Ask>; 2] = [None, None];
    let mut holder: Option<usize> = None;
    let (mut turns, mut interruptions): (Vec<Turn>, _) = (Vec::new(), 0);
    loop {
        while waiting.iter().any(Option::is_none) {
            let (tool, ask) = asked.recv().map_err(|error| error.to_string())?;
            waiting[tool] = Some(ask);
            if ask == Ask::Done && holder == Some(tool) {
                // The kernel lets go of it, however its holder ended.
                holder = None;
            }
        }
        let now = shared
            .lock()
            .map_err(|_| "a tool failed".to_owned())?
            .clone();
        lost_hooks(&now).map_err(|error| format!("between two steps: {error}"))?;
        let last = turns.last().map(|turn| turn.tool);
        let unfinished = last.filter(|tool| waiting[*tool] != Some(Ask::Done));
        let mut choices = Vec::new();
        for (tool, ask) in waiting.iter().enumerate() {
            let kept_out = has_lock && *ask == Some(Ask::Lock) && holder.is_some();
            let interrupts = !has_lock
                && unfinished.is_some_and(|last| last != tool)
                && interruptions >= INTERRUPTIONS;
            if kept_out || interrupts || *ask == Some(Ask::Done) {
                continue;
            }
            choices.push(Turn { tool, dies: false });
            if has_lock && *ask == Some(Ask::Step(Step::Change)) {
                choices.push(Turn { tool, dies: true });
            }
        }
        if choices.is_empty() {
            return Ok(turns);
        }
        let depth = turns.len();
        if depth == path.len() {
            path.push((0, choices.len()));
        }
        let turn = choices[path[depth].0];
        if unfinished.is_some_and(|last| last != turn.tool) {
            interruptions += 1;
        }
        if waiting[turn.tool] == Some(Ask::Lock) && !turn.dies {
            holder = Some(turn.tool);
        }
        waiting[turn.tool] = None;
        turns.push(turn);
        go[turn.tool]
            .send(!turn.dies)
            .map_err(|error| error.to_string())?;
    }
}
