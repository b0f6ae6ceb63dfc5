//! Apply: prepare, fill, switch; undo what was done when a step fails.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use invivo_image::LiveAddr;
use invivo_patch::{Hex, Moment, Patch, SectionKind};
use serde::Serialize;

use crate::callouts::{self, Called};
use crate::record::{Record, State, set_state, write_record};
use crate::settle::recover;
use crate::switch::{Change, Job, Switched, switch};
use crate::x86_64::Form;
use crate::{ApplyError, Blocker, HookRecord, Preflight, Protection, Target, TargetError, refused};

/// What callers of replaced functions may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Calls made after the switch run new code; frames inside old code finish there.
    #[default]
    Entry,
    /// The switch happens when no thread is inside what is replaced.
    Quiescent,
}

/// How to apply.
#[derive(Clone, Debug)]
pub struct Options<'o> {
    /// What callers may see.
    pub consistency: Consistency,
    /// How long to wait for threads that are in the way.
    pub timeout: Duration,
    /// The program and version that applies.
    pub applied_by: String,
    /// Set when the user wants to stop.
    pub interrupted: Option<&'o AtomicBool>,
    /// Told once who is in the way, if it has to be waited for.
    pub waiting: Option<fn(&[Blocker])>,
}

impl Options<'_> {
    /// True if the user wants to stop.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

/// How the hooks went live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub enum SwitchKind {
    /// No thread stopped.
    #[serde(rename = "page swap")]
    PageSwap,
    /// All threads stood for a moment.
    #[serde(rename = "stopped")]
    Stopped,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub enum OutcomeState {
    /// Live now.
    #[serde(rename = "applied")]
    Applied,
    /// Taken back now.
    #[serde(rename = "reverted")]
    Reverted,
    /// Was so already.
    #[serde(rename = "nothing to do")]
    NothingToDo,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What became of it.
    pub state: OutcomeState,
    /// The patch's name.
    pub patch: String,
    /// What callers could see.
    pub consistency: Consistency,
    /// Hooked functions.
    pub hooks: usize,
    /// How the switch was made, if one was.
    pub switch: Option<SwitchKind>,
    /// How long one thread was held to make system calls.
    pub visited: Duration,
    /// How long all threads stood.
    pub stopped: Duration,
    /// The patch that it replaced.
    pub replaced: Option<String>,
    /// Functions of the patch that were called.
    pub called: Vec<Called>,
}

impl Outcome {
    /// An outcome for which nothing was held.
    #[must_use]
    pub fn new(state: OutcomeState, patch: &str) -> Outcome {
        Outcome {
            state,
            patch: patch.to_owned(),
            consistency: Consistency::Entry,
            hooks: 0,
            switch: None,
            visited: Duration::ZERO,
            stopped: Duration::ZERO,
            replaced: None,
            called: Vec::new(),
        }
    }
}

/// Makes `patch`, whose digest is `id`, live in `target`.
///
/// # Errors
/// When it is refused, blocked or fails; the target is as it was.
pub fn apply(
    target: &mut dyn Target,
    patch: &Patch,
    id: &Hex,
    options: &Options<'_>,
) -> Result<Outcome, ApplyError> {
    recover(target, options)?;
    let plan = Preflight::new(target, patch, id)?;
    carry_out(target, patch, id, plan, options)
}

/// The same, in the place of whatever patch of the image is live, be it an earlier or a
/// later one: a way back to any of them in one switch.
///
/// # Errors
/// As [`apply`].
pub fn replace(
    target: &mut dyn Target,
    patch: &Patch,
    id: &Hex,
    options: &Options<'_>,
) -> Result<Outcome, ApplyError> {
    recover(target, options)?;
    let plan = Preflight::replacing(target, patch, id)?;
    carry_out(target, patch, id, plan, options)
}

fn carry_out(
    target: &mut dyn Target,
    patch: &Patch,
    id: &Hex,
    plan: Preflight,
    options: &Options<'_>,
) -> Result<Outcome, ApplyError> {
    let mut options = options.clone();
    if plan.quiescent {
        options.consistency = Consistency::Quiescent;
    }
    let options = &options;
    let mut outcome = Outcome {
        consistency: options.consistency,
        hooks: plan.hooks.len(),
        replaced: plan.previous.as_ref().map(|record| record.name.clone()),
        ..Outcome::new(OutcomeState::NothingToDo, &patch.identity.name)
    };
    if plan.applied.is_some() {
        return Ok(outcome);
    }
    let registrar = if plan.needs_unwinding {
        target.unwind_registrar()?
    } else {
        None
    };
    if plan.needs_unwinding && registrar.is_none() {
        return refused(
            "exceptions pass through functions of the patch, and the target has no \
             __register_frame_info with which their unwind data could be made known",
        );
    }
    let mut record = record(&plan, patch, id, options);
    if plan.kept.is_none() {
        outcome.visited += prepare(target, &plan, &record)?;
    }
    let live = (|| -> Result<Switched, ApplyError> {
        if let (true, false, Some(registrar), Some(unwind)) = (
            plan.needs_unwinding,
            record.registered,
            registrar,
            plan.layout.unwind,
        ) {
            outcome.visited += register(target, &mut record, registrar, unwind)?;
        }
        callouts::enter(target, &record)?;
        outcome.visited +=
            callouts::ask(target, &record, Moment::BeforeApply, &mut outcome.called)?;
        go_live(target, &plan, &record, options)
    })();
    match live {
        Ok(switched) => {
            outcome.state = OutcomeState::Applied;
            outcome.switch = switched.kind;
            outcome.visited += switched.visited;
            outcome.stopped = switched.stopped;
            outcome.visited += tell_backtraces(target, &plan, &mut record);
            outcome.visited +=
                callouts::tell(target, &record, Moment::AfterApply, &mut outcome.called)?;
            Ok(outcome)
        }
        Err(error) => Err(take_down(target, &record, &plan, error)),
    }
}

fn record(plan: &Preflight, patch: &Patch, id: &Hex, options: &Options<'_>) -> Record {
    let layout = &plan.layout;
    let variables = patch
        .contents
        .sections
        .iter()
        .filter(|s| s.kind == SectionKind::Data);
    Record {
        id: id.clone(),
        name: patch.identity.name.clone(),
        labels: patch.identity.labels.clone(),
        applied_by: options.applied_by.clone(),
        sequence: patch.order.sequence,
        build_id: patch.target.build_id.clone(),
        module: plan.module.start,
        functions: patch
            .redirects
            .iter()
            .map(|redirect| redirect.function.clone())
            .collect(),
        replaced: plan
            .replaced
            .iter()
            .map(|(_, r)| (r.start, r.end.0 - r.start.0))
            .collect(),
        hooks: plan.writes().cloned().collect(),
        region: (
            layout.region.start,
            layout.region.end.0 - layout.region.start.0,
        ),
        room: layout.record,
        data: (layout.data.start, layout.data.end.0 - layout.data.start.0),
        own: layout.functions.clone(),
        unwind: layout.unwind.map(|at| (at, layout.unwind_size)),
        variables: variables
            .filter_map(|section| section.name.strip_prefix(".data.").map(str::to_owned))
            .collect(),
        scratch: (LiveAddr(0), 0),
        callouts: layout.callouts.clone(),
        replaces: plan.previous.as_ref().map(|previous| previous.id.clone()),
        registering: plan.kept.as_ref().is_some_and(|kept| kept.registering),
        registered: plan.kept.as_ref().is_some_and(|kept| kept.registered),
        quiescent: options.consistency == Consistency::Quiescent,
    }
}

/// Makes the patch's unwind data known to the language's runtime. The record says so
/// before, for the memory, and after, for the next apply of the patch.
fn register(
    target: &mut dyn Target,
    record: &mut Record,
    registrar: LiveAddr,
    unwind: LiveAddr,
) -> Result<Duration, ApplyError> {
    let object = record.data.0;
    record.registering = true;
    let bytes = record.to_bytes(State::Prepared);
    let bytes = bytes.ok_or_else(|| ApplyError::Refused("the record is too long".to_owned()))?;
    let mut started = false;
    let called = target.visit_outside_runtime(&mut |visit| {
        visit.write(record.region.0, &bytes)?;
        started = true;
        visit.call(registrar, [unwind.0, object.0])
    });
    record.registering = started;
    let visited = called?;
    record.registered = true;
    Ok(visited)
}

/// Makes the unwind data of a patch that is live known to `backtrace(3)`, where that can be done at
/// once and without any doubt; otherwise a way back ends at the patch. Returns how long one
/// thread was held.
///
/// It is not taken back at a revert: threads may still be inside new code then.
fn tell_backtraces(target: &mut dyn Target, plan: &Preflight, record: &mut Record) -> Duration {
    let known = plan.needs_unwinding || record.registering || record.registered;
    let (Some(unwind), false) = (plan.layout.unwind, known) else {
        return Duration::ZERO;
    };
    let Ok(Some(registrar)) = target.backtrace_registrar() else {
        return Duration::ZERO;
    };
    let object = record.data.0;
    let before = record.clone();
    record.registering = true;
    let Some(bytes) = record.to_bytes(State::Applied) else {
        *record = before;
        return Duration::ZERO;
    };
    let mut started = false;
    let visited = target.visit_outside_runtime_now(&mut |visit| {
        visit.write(record.region.0, &bytes)?;
        started = true;
        visit.call(registrar, [unwind.0, object.0])
    });
    // Where it is not known what became of the call, the record goes on to say so.
    if let Ok(Some(_)) = visited {
        record.registered = true;
    } else if !started {
        *record = before;
    }
    let _ = write_record(target, record, State::Applied);
    visited.ok().flatten().unwrap_or_default()
}

/// Makes the patch's memory and fills it while the target runs.
fn prepare(
    target: &mut dyn Target,
    plan: &Preflight,
    record: &Record,
) -> Result<Duration, ApplyError> {
    let layout = &plan.layout;
    let visited = target.visit(&mut |visit| {
        visit.map(layout.region.clone(), Protection::ReadExecute)?;
        if !layout.data.is_empty()
            && let Err(error) = visit.map(layout.data.clone(), Protection::ReadWrite)
        {
            visit.unmap(layout.region.clone())?;
            return Err(error);
        }
        Ok(())
    })?;
    let filled = (|| -> Result<(), TargetError> {
        // The record first: should this program die, the next one knows whose memory it is.
        write_record(target, record, State::Filling)?;
        target.write(
            LiveAddr(layout.region.start.0 + layout.record),
            &layout.contents,
        )?;
        if !layout.variables.is_empty() {
            target.write(layout.data.start, &layout.variables)?;
        }
        set_state(target, record, State::Prepared)
    })();
    filled.map_err(|error| unmap(target, record, error.into()))?;
    Ok(visited)
}

fn go_live(
    target: &mut dyn Target,
    plan: &Preflight,
    record: &Record,
    options: &Options<'_>,
) -> Result<Switched, ApplyError> {
    let changes = changes(plan.previous.as_ref(), &record.hooks);
    if overlap(&changes) {
        return refused(
            "the patch needs padding in another way than the one that it would replace; \
             revert that one first",
        );
    }
    let mut torn: Vec<_> = plan
        .hooks
        .iter()
        .filter(|hook| hook.form == Form::Overwrite)
        .flat_map(|hook| {
            hook.writes
                .iter()
                .map(|write| (hook.function.clone(), write))
        })
        .map(|(name, w)| {
            (
                name,
                LiveAddr(w.at.0 + 1)..LiveAddr(w.at.0 + w.new.0.len() as u64),
            )
        })
        .collect();
    torn.extend(plan.previous.iter().flat_map(Record::pads));
    if let Some(previous) = &plan.previous {
        torn.extend(between_forms(
            &record.name,
            previous,
            &record.hooks,
            &changes,
        ));
    }
    let job = Job {
        changes: &changes,
        busy: &plan.busy(),
        torn: &torn,
        options,
    };
    write_record(target, record, State::Switching)?;
    let switched = switch(target, &job, &mut |target, scratch| {
        write_record(
            target,
            &Record {
                scratch,
                ..record.clone()
            },
            State::Switching,
        )
    })?;
    callouts::goes_live(target, record)?;
    write_record(target, record, State::Applied)?;
    if let Some(previous) = &plan.previous {
        callouts::leave(target, previous)?;
        set_state(target, previous, State::Reverted)?;
    }
    Ok(switched)
}

/// What changes when `previous` is replaced by `next`: places of both, in order.
///
/// Where the two hook an entry in different ways, its bytes change once.
pub(crate) fn changes(previous: Option<&Record>, next: &[HookRecord]) -> Vec<Change> {
    let mut changes: Vec<Change> = previous
        .into_iter()
        .flat_map(|record| &record.hooks)
        .map(taken_back)
        .collect();
    for hook in next {
        let next = Change {
            at: hook.at,
            from: hook.old.0.clone(),
            to: hook.new.0.clone(),
            rank: if hook.pad { 0 } else { 1 },
        };
        let same = |c: &Change| c.at == next.at && c.to.len() == next.to.len();
        let entry = |c: &Change| c.rank == 1 && next.rank == 1 && c.meets(&next.range());
        match changes.iter_mut().find(|c| same(c) || entry(c)) {
            Some(change) => *change = change.followed_by(&next),
            None => changes.push(next),
        }
    }
    changes.sort_by_key(|change| change.rank);
    changes
}

/// Bytes in the middle of which no thread may be when hooks of one form give way to hooks
/// of another: an instruction of the one may begin inside one of the other.
fn between_forms(
    name: &str,
    previous: &Record,
    next: &[HookRecord],
    changes: &[Change],
) -> Vec<(String, Range<LiveAddr>)> {
    let hooks = || previous.hooks.iter().chain(next);
    let other = |change: &&Change| {
        hooks().any(|hook| change.meets(&hook.range()) && hook.range() != change.range())
    };
    let inside = |change: &Change| LiveAddr(change.at.0 + 1)..change.range().end;
    let changes = changes.iter().filter(other);
    changes.map(|c| (name.to_owned(), inside(c))).collect()
}

/// The change that takes a hook back.
pub(crate) fn taken_back(hook: &HookRecord) -> Change {
    Change {
        at: hook.at,
        from: hook.new.0.clone(),
        to: hook.old.0.clone(),
        rank: if hook.pad { 2 } else { 1 },
    }
}

/// Two changes of the same bytes: padding that two patches use in different ways, so that
/// no order of writing is right for a thread on its way through it.
pub(crate) fn overlap(changes: &[Change]) -> bool {
    let mut places: Vec<(u64, u64)> = changes
        .iter()
        .map(|change| (change.at.0, change.range().end.0))
        .collect();
    places.sort_unstable();
    places.windows(2).any(|pair| pair[0].1 > pair[1].0)
}

/// Undoes what `prepare` did after a later step failed.
fn take_down(
    target: &mut dyn Target,
    record: &Record,
    plan: &Preflight,
    error: ApplyError,
) -> ApplyError {
    let open = matches!(
        error,
        ApplyError::Inconsistent(_)
            | ApplyError::Target(TargetError::Unfinished(_) | TargetError::Gone(_))
    );
    if open {
        return error;
    }
    let mut untouched = true;
    for change in changes(plan.previous.as_ref(), &record.hooks) {
        match target.holds(change.at, &change.from) {
            Ok(holds) => untouched &= holds,
            // Nothing is left that could be inconsistent.
            Err(gone @ TargetError::Gone(_)) => return gone.into(),
            Err(_) => untouched = false,
        }
    }
    if !untouched {
        // Hooks lead to the new code: it stays, and the next command settles the rest.
        return ApplyError::Inconsistent(format!("{error}; hooks are written"));
    }
    if record.registering || plan.kept.is_some() || record.callouts.is_some() {
        // The language's runtime points into this memory, or what a callout has made may:
        // it stays, unused.
        let undone = set_state(target, record, State::Reverted).map_err(ApplyError::from);
        // What is due and cannot be called now, the next command calls.
        let _ = undone.and_then(|()| callouts::finish(target, record, false));
        return error;
    }
    unmap(target, record, error)
}

/// Gives a patch's memory back, which no thread can have reached; `error` says why.
fn unmap(target: &mut dyn Target, record: &Record, error: ApplyError) -> ApplyError {
    match release(target, record) {
        Ok(_) => error,
        Err(second) => ApplyError::Refused(format!(
            "{error}; its memory could not be given back: {second}"
        )),
    }
}

/// Gives a patch's memory back.
pub(crate) fn release(target: &mut dyn Target, record: &Record) -> Result<Duration, TargetError> {
    target.visit(&mut |visit| {
        let range = |(start, size): (LiveAddr, u64)| start..LiveAddr(start.0 + size);
        visit.unmap(range(record.region))?;
        if record.data.1 > 0 {
            visit.unmap(range(record.data))?;
        }
        Ok(())
    })
}
