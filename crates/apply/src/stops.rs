//! Each moment at which all threads stop for a patch, and why.

use invivo_image::demangle;
use serde::Serialize;

use crate::changes::{between_forms, changes, pads_given_up};
use crate::going_live::tears;
use crate::quiet::{Quiet, first_page, quiet_way};
use crate::switch::Change;
use crate::x86_64::Form;
use crate::{HookRecord, Preflight, Record, Target, TargetError};

/// What all threads stop for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The patch goes live.
    Apply,
    /// It is taken back, later.
    Revert,
}

/// A reason for which all threads stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Stop {
    /// For what.
    pub step: Step,
    /// Why.
    pub reason: String,
}

/// What the switch of a patch is for the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stops {
    /// Why threads stop where it is applied with `entry` consistency, and where it is taken back
    /// again; empty if nobody stops.
    pub all: Vec<Stop>,
    /// Bytes of address space in which a clean copy of the code will wait, where none does yet.
    pub copy: u64,
}

impl Preflight {
    /// Why threads stop for the patch, and how much of the code is copied so that they need not.
    ///
    /// # Errors
    /// When the target is gone or may not be looked at.
    pub fn stops(&self, target: &dyn Target) -> Result<Stops, TargetError> {
        if self.applied.is_some() {
            return Ok(Stops::default());
        }
        let mut copy = 0;
        let mut stops = Vec::new();
        let mut stop = |step, reason: String| stops.push(Stop { step, reason });
        for hook in &self.hooks {
            let name = demangle(&hook.function);
            match hook.form {
                Form::Overwrite => {
                    let previous = self.previous.as_ref();
                    if !hook.writes.iter().any(|hook| tears(hook, previous)) {
                        continue;
                    }
                    let why =
                        "several instructions are replaced, and no thread may be between them";
                    stop(Step::Apply, format!("{name}: {why}"));
                }
                Form::PadJump => {
                    let why = "a thread may be on its way through padding, between two jumps";
                    stop(Step::Revert, format!("{name}: {why}"));
                }
                Form::Jump | Form::LateJump => {}
            }
        }
        let writes: Vec<HookRecord> = self.writes().cloned().collect();
        let changes = changes(self.previous.as_ref(), &writes);
        if let Some(previous) = &self.previous
            && !is_even(previous, &writes, &changes)
        {
            let name = &previous.name;
            let why = "and a thread may be between two jumps, or where no instruction begins then";
            stop(
                Step::Apply,
                format!("the hooks of {name} give way to others, {why}"),
            );
        }
        if self.quiescent {
            let why = "no thread may be inside what is replaced: functions are called in another \
                       way, or lead back to where their hook is";
            stop(Step::Apply, why.to_owned());
            stop(Step::Revert, why.to_owned());
        }
        let applies = stops.iter().any(|stop| stop.step == Step::Apply);
        if let Some(at) = first_page(&changes)
            && !applies
        {
            let way = quiet_way(target, &changes, Some(&self.spare))
                .map_err(|error| TargetError::Unsupported(error.to_string()))?;
            copy = way.as_ref().map_or(0, Quiet::copied);
            if way.is_none() {
                let reason = format!(
                    "the code from {at} on is not what its file holds and has no clean copy, its file \
                     was replaced, it is locked in memory, or lies in huge pages"
                );
                let step = Step::Apply;
                stops.push(Stop { step, reason });
            }
        }
        stops.sort_by_key(|stop| stop.step == Step::Revert);
        Ok(Stops { all: stops, copy })
    }
}

/// True if new hooks take the place of those of `previous` without a moment at which a thread
/// could not go on from where it is.
fn is_even(previous: &Record, hooks: &[HookRecord], changes: &[Change]) -> bool {
    pads_given_up(previous, hooks).is_empty()
        && between_forms("", previous, hooks, changes).is_empty()
}
