//! The state machine, looked through to the end: every state that tools which die leave
//! behind, and every order in which two tools take turns. What runs is the real code.

mod gated;
mod scene;
mod turns;

use std::cell::Cell;
use std::collections::HashSet;

use gated::{Gate, Gated, Step};
use invivo_apply::{
    ApplyError, Consistency, MemoryTarget, Region, Target, TargetError, apply, list, recover,
    revert,
};
use scene::{
    FAR, Made, ONE, START, TORN, TWO, answers, bytes_of, hooks_lead_somewhere, options, patch,
    target,
};
use sha2::{Digest as _, Sha256};
use turns::{Tool, explore};

/// Tools that may die one after the other.
const DEATHS: usize = 2;

/// What one tool does.
#[derive(Clone, Debug)]
enum Command {
    Apply(Box<Made>, Consistency),
    Revert,
    Recover,
}

impl Command {
    fn run(&self, target: &mut dyn Target) -> Result<(), ApplyError> {
        match self {
            Command::Apply(made, consistency) => {
                apply(target, &made.patch, &made.id, &options(*consistency)).map(|_| ())
            }
            Command::Revert => revert(target, None, &options(Consistency::Entry)).map(|_| ()),
            Command::Recover => recover(target, &options(Consistency::Entry)).map(|_| ()),
        }
    }
}

/// Patches that go live in each way, and that replace each other.
fn patches() -> [(Made, Consistency); 5] {
    [
        (patch("p1", 1, &[ONE, TWO], 7), Consistency::Entry),
        (patch("p2", 2, &[ONE, FAR], 8), Consistency::Entry),
        (patch("p3", 3, &[ONE, TORN], 9), Consistency::Entry),
        (patch("p1", 1, &[ONE, TWO], 7), Consistency::Quiescent),
        // Nothing of it is anywhere in the first.
        (patch("p4", 4, &[FAR], 10), Consistency::Quiescent),
    ]
}

/// Everything that can be done with some of the patches.
fn commands(numbers: &[usize]) -> Vec<Command> {
    let all = patches();
    let applies = numbers.iter().map(|number| {
        let (made, how) = &all[*number];
        Command::Apply(Box::new(made.clone()), *how)
    });
    applies.chain([Command::Revert, Command::Recover]).collect()
}

/// The tool dies before the step with this number.
#[derive(Debug)]
struct Death {
    left: Cell<usize>,
    is_dead: Cell<bool>,
}

impl Gate for Death {
    fn step(&self, step: Step) -> Result<(), TargetError> {
        if step == Step::Change {
            match self.left.get().checked_sub(1) {
                Some(left) => self.left.set(left),
                None => self.is_dead.set(true),
            }
        }
        if self.is_dead.get() {
            return Err(TargetError::NotNow("the tool is dead".to_owned()));
        }
        Ok(())
    }
}

/// All that can be told from a target.
fn key(target: &MemoryTarget) -> Vec<u8> {
    let mut sum = Sha256::new();
    for region in target.regions().expect("memory has regions") {
        sum.update(format!("{region:?}"));
        let size = usize::try_from(region.range.end.0 - region.range.start.0).expect("small");
        let mut bytes = vec![0; size];
        target
            .read(region.range.start, &mut bytes)
            .expect("it is there");
        sum.update(&bytes);
    }
    sum.finalize().to_vec()
}

/// What is listed is what answers, and nothing else is changed.
fn is_settled(target: &MemoryTarget) -> Result<(), String> {
    let live = list(target).map_err(|error| error.to_string())?;
    let mut expected = [1, 0, 3, 4].map(Some);
    // The function that returns zero does not say so with a constant.
    expected[1] = None;
    let known = patches();
    for patch in &live {
        let (made, _) = known
            .iter()
            .find(|(made, _)| made.patch.identity.name == patch.name)
            .ok_or("a patch that nobody made")?;
        let functions: Vec<&str> = made.patch.redirects.iter().map(|r| &*r.function).collect();
        for (function, answer) in [ONE, TWO, TORN, FAR].iter().zip(&mut expected) {
            if functions.contains(&function.name) {
                *answer = Some(made.patch.contents.sections[0].bytes[1]);
            }
        }
    }
    let now = answers(target);
    if live.len() > 1 || now != expected {
        return Err(format!("{live:?} is listed, and the answers are {now:?}"));
    }
    if live.is_empty() && bytes_of(target) != bytes_of(&scene::target()) {
        return Err("nothing is live, and the text is not as before".to_owned());
    }
    copies_are_clean(target, live.is_empty())
}

/// There is one clean copy of the code at most while a patch is live, and none else; it is what the
/// file holds.
fn copies_are_clean(target: &MemoryTarget, none_is_live: bool) -> Result<(), String> {
    let regions = target.regions().map_err(|error| error.to_string())?;
    let is_copy = |r: &&Region| r.file.is_some() && r.range.start != START;
    let copies: Vec<&Region> = regions.iter().filter(is_copy).collect();
    if copies.len() > usize::from(!none_is_live) {
        return Err(format!("pages are left aside: {copies:?}"));
    }
    let clean = bytes_of(&scene::target());
    for copy in copies {
        let from = usize::try_from(copy.offset).expect("small");
        let size = usize::try_from(copy.range.end.0 - copy.range.start.0).expect("small");
        let is_clean = target.holds(copy.range.start, &clean[from..from + size]);
        if !is_clean.map_err(|error| error.to_string())? {
            return Err(format!("the copy at {} is not clean", copy.range.start));
        }
    }
    Ok(())
}

/// What a recover makes of a state: it must be settled, and a second one finds nothing.
fn settle(state: &MemoryTarget) -> Result<MemoryTarget, String> {
    hooks_lead_somewhere(state, "before recover");
    let mut settled = state.clone();
    let done = recover(&mut settled, &options(Consistency::Entry));
    done.map_err(|error| format!("recover: {error}"))?;
    is_settled(&settled)?;
    let again = recover(&mut settled, &options(Consistency::Entry));
    match again {
        Ok(nothing) if nothing.is_empty() => Ok(settled),
        other => Err(format!("the second recover: {other:?}")),
    }
}

/// What is live.
fn live(target: &MemoryTarget) -> Result<Vec<String>, String> {
    let live = list(target).map_err(|error| error.to_string())?;
    Ok(live.into_iter().map(|patch| patch.name).collect())
}

/// A command that dies leaves what was live before, or what it would make of it.
fn is_allowed(
    before: &MemoryTarget,
    command: &Command,
    after: &MemoryTarget,
) -> Result<(), String> {
    let (before, after) = (live(before)?, live(after)?);
    let is_right = after == before
        || match command {
            Command::Apply(made, _) => after == [made.patch.identity.name.as_str()],
            Command::Revert => after.is_empty(),
            Command::Recover => false,
        };
    if is_right {
        Ok(())
    } else {
        Err(format!("{before:?} was live before, and {after:?} is now"))
    }
}

/// Looks at every state that the commands lead to, in any order and with deaths at any
/// step. Returns how many states and how many ways between them there are.
fn look_through(
    commands: &[Command],
    spoil: impl Fn(&mut MemoryTarget),
) -> Result<(usize, usize), String> {
    let begin = target();
    let mut known = HashSet::from([(key(&begin), 0)]);
    let mut open = vec![(begin, 0)];
    let mut ways = 0;
    while let Some((state, deaths)) = open.pop() {
        let before = settle(&state)?;
        for command in commands {
            for steps in 0.. {
                let left = if deaths < DEATHS { steps } else { usize::MAX };
                let gate = Death {
                    left: Cell::new(left),
                    is_dead: Cell::new(false),
                };
                let mut tool = Gated::new(state.clone(), gate);
                let result = command.run(&mut tool);
                let died = tool.gate.is_dead.get();
                let mut after = tool.inner();
                if died {
                    spoil(&mut after);
                }
                ways += 1;
                let told = |error| format!("{command:?}, {left} steps, {result:?}: {error}");
                let settled = settle(&after).map_err(told)?;
                is_allowed(&before, command, &settled).map_err(told)?;
                if !died {
                    is_settled(&after).map_err(told)?;
                }
                let next = (key(&after), deaths + usize::from(died));
                if known.insert(next.clone()) {
                    open.push((after, next.1));
                }
                if !died {
                    break;
                }
            }
        }
    }
    Ok((known.len(), ways))
}

#[test]
fn every_state_that_dead_tools_leave_is_settled() {
    let (mut states, mut ways) = (0, 0);
    // Pairs of patches; all at once are too many states.
    for numbers in [[0, 1], [0, 2], [1, 3], [0, 4]] {
        let found = look_through(&commands(&numbers), |_| {}).expect("every state is settled");
        println!(
            "patches {numbers:?}: {} states, {} ways between them",
            found.0, found.1
        );
        (states, ways) = (states + found.0, ways + found.1);
    }
    assert!(states > 100 && ways > 1000, "hardly anything was looked at");
}

/// The check is worth something only if it finds a journal that says too little.
#[test]
fn a_journal_that_is_not_written_is_found() {
    /// As a record looks that was never told of the switch.
    fn as_prepared(target: &mut MemoryTarget) {
        const STATE: u64 = 8;
        const PREPARED: [u8; 4] = [1, 0, 0, 0];
        const SWITCHING: [u8; 4] = [2, 0, 0, 0];
        let regions = target.regions().expect("memory has regions");
        for region in regions.iter().filter(|region| region.range.start != START) {
            let state = region.range.start.checked_add(STATE).expect("an address");
            if target.holds(state, &SWITCHING).expect("it is there") {
                target.write(state, &PREPARED).expect("it is there");
            }
        }
    }
    let [first, ..] = patches();
    let apply = Command::Apply(Box::new(first.0), first.1);
    look_through(&[apply.clone(), Command::Revert], |_| {}).expect("as it is, it is right");
    let found = look_through(&[apply, Command::Revert], as_prepared);
    println!("{}", found.clone().expect_err("the journal is not needed"));
}

fn pairs() -> Vec<(MemoryTarget, [Command; 2])> {
    let [first, second, torn, quiet, other] =
        patches().map(|(made, how)| Command::Apply(Box::new(made), how));
    let mut live = target();
    first.run(&mut live).expect("it applies");
    let clean = target();
    vec![
        (clean.clone(), [first.clone(), first.clone()]),
        (clean.clone(), [first.clone(), second.clone()]),
        (clean, [quiet, Command::Revert]),
        (live.clone(), [second.clone(), Command::Revert]),
        (live.clone(), [Command::Revert, first]),
        (live.clone(), [torn, second]),
        (live.clone(), [other, Command::Recover]),
        (live, [Command::Recover, Command::Revert]),
    ]
}

fn tool(command: &Command) -> Box<Tool<'_>> {
    Box::new(move |target| command.run(target))
}

#[test]
fn two_tools_in_every_order() {
    let mut orders = 0;
    for (begin, [one, other]) in pairs() {
        let found = explore(&begin, [tool(&one), tool(&other)], true, |after| {
            let settled = settle(after)?;
            let may_go = [&one, &other].iter().any(|c| matches!(c, Command::Revert));
            if !may_go && live(&begin)?.len() > live(&settled)?.len() {
                return Err("what was live is lost".to_owned());
            }
            Ok(())
        });
        orders += found.unwrap_or_else(|error| panic!("{one:?} beside {other:?}: {error}"));
    }
    println!("{orders} orders of two tools");
    assert!(orders > 1000, "hardly any order was tried");
}

/// Without the lock two tools are in each other's way, and the check sees it.
#[test]
fn two_tools_without_the_lock_are_found() {
    let failed = pairs().into_iter().any(|(begin, [one, other])| {
        let tools = [tool(&one), tool(&other)];
        explore(&begin, tools, false, |after| settle(after).map(|_| ())).is_err()
    });
    assert!(failed, "the lock is not needed");
}
