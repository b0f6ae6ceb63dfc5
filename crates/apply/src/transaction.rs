//! Apply: prepare, fill, switch; undo what was done when a step fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use invivo_image::LiveAddr;
use invivo_patch::{Hex, Moment, Patch, SectionKind};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::callouts::{self, Called};
use crate::going_live::{Going, go_live, take_down, unmap};
use crate::record::{ImportRecord, Record, State, set_state, write_record};
use crate::registration::{register, tell_backtraces};
use crate::sane::cleaned;
use crate::settle::recover;
use crate::switch::Switched;
use crate::unload::{Unloaded, takes_no_address};
use crate::{ApplyError, Blocker, Preflight, Protection, Target, TargetError, refused};

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
    /// How many bytes of memory may be searched while all threads stand; `None` for as many as
    /// take a moment.
    pub search: Option<u64>,
    /// The program and version that applies.
    pub applied_by: String,
    /// Set when the user wants to stop.
    pub interrupted: Option<&'o AtomicBool>,
    /// Told once who is in the way, if it has to be waited for.
    pub waiting: Option<fn(&[Blocker])>,
    /// Told of each step that has been made, and how long it took.
    pub steps: Option<fn(&'static str, Duration)>,
}

impl Options<'_> {
    /// True if the user wants to stop.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
            .is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Makes a step, and tells of it.
    pub(crate) fn step<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        if let Some(tell) = self.steps {
            tell(name, begun.elapsed());
        }
        done
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
    /// What became of its memory, if that was to be given back.
    pub unloaded: Option<Unloaded>,
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
            unloaded: None,
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
    options.step("settle", || recover(target, options))?;
    let plan = options.step("check", || Preflight::new(target, patch, id))?;
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
    options.step("settle", || recover(target, options))?;
    let plan = options.step("check", || Preflight::replacing(target, patch, id))?;
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
    let mut record = record(&plan, patch, id, options)?;
    if plan.kept.is_none() {
        outcome.visited += options.step("prepare", || prepare(target, &plan, &record))?;
    }
    let going = Going {
        previous: plan.previous.as_ref(),
        busy: plan.busy(),
        spare: Some(plan.spare),
        kept: plan.kept.is_some(),
    };
    make_live(target, &mut record, &going, registrar, options, outcome)
}

/// Makes a patch live whose memory is filled; `registrar` is told its unwind data before.
pub(crate) fn make_live(
    target: &mut dyn Target,
    record: &mut Record,
    going: &Going<'_>,
    registrar: Option<LiveAddr>,
    options: &Options<'_>,
    mut outcome: Outcome,
) -> Result<Outcome, ApplyError> {
    let live = (|| -> Result<Switched, ApplyError> {
        if let (false, Some(registrar), Some((unwind, _))) =
            (record.registered, registrar, record.unwind)
        {
            outcome.visited +=
                options.step("register", || register(target, record, registrar, unwind))?;
        }
        callouts::enter(target, record)?;
        outcome.visited += callouts::ask(target, record, Moment::BeforeApply, &mut outcome.called)?;
        options.step("switch", || go_live(target, going, record, options))
    })();
    match live {
        Ok(switched) => {
            outcome.state = OutcomeState::Applied;
            outcome.switch = switched.kind;
            outcome.visited += switched.visited;
            outcome.stopped = switched.stopped;
            outcome.visited += options.step("tell unwinder", || tell_backtraces(target, record));
            outcome.visited +=
                callouts::tell(target, record, Moment::AfterApply, &mut outcome.called)?;
            Ok(outcome)
        }
        Err(error) => Err(take_down(target, record, going, error)),
    }
}

fn record(
    plan: &Preflight,
    patch: &Patch,
    id: &Hex,
    options: &Options<'_>,
) -> Result<Record, ApplyError> {
    let layout = &plan.layout;
    let variables = patch
        .contents
        .sections
        .iter()
        .filter(|s| s.kind == SectionKind::Data);
    let imports = patch.imports().zip(&plan.imported);
    // As whoever reads it will see it: a record that reads as it is written keeps its size.
    Ok(cleaned(Record {
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
        text: (LiveAddr(0), 0),
        spare: plan.spare.note(),
        callouts: layout.callouts.clone(),
        replaces: plan.previous.as_ref().map(|previous| previous.id.clone()),
        registering: plan.kept.as_ref().is_some_and(|kept| kept.registering),
        registered: plan.kept.as_ref().is_some_and(|kept| kept.registered),
        quiescent: options.consistency == Consistency::Quiescent,
        contents: Some(Hex(Sha256::digest(&layout.contents).to_vec())),
        code: plan.code.clone(),
        imports: imports
            .map(|((name, version), at)| ImportRecord {
                name: name.to_owned(),
                version: version.cloned(),
                at: *at,
            })
            .collect(),
        unshared: patch.order.unshared.clone(),
        alone: takes_no_address(patch),
    }))
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
