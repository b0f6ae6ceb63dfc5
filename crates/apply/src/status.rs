//! How a process stands to an image that has a fix; stops nothing and changes nothing.

use std::ops::Range;

use invivo_image::LiveAddr;
use invivo_patch::{Hex, Patch};
use serde::Serialize;

use crate::found::{Found, find_all};
use crate::quiescence::{Blocker, blockers};
use crate::record::{Record, State};
use crate::{ApplyError, Preflight, Stack, Target, TargetError};

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A patch is live, and no waiting thread is seen in old code.
    Applied,
    /// A patch is live, and threads may still finish in old code.
    Pending,
    /// A tool works on it, or died.
    Unfinished,
    /// Taken back: old code runs.
    Reverted,
    /// Old code runs; the patch could be applied.
    Checked,
    /// Old code runs; the patch would be refused.
    Refused,
    /// Old code runs.
    Unpatched,
}

/// How a process stands to an image.
#[derive(Clone, Debug)]
pub struct Status {
    /// In a word.
    pub standing: Standing,
    /// Patches of the image that are live.
    pub live: Vec<String>,
    /// Threads that may be in old code.
    pub threads: Vec<Blocker>,
    /// Why.
    pub reason: Option<String>,
}

/// How `target` stands to the image with this build id, and to a patch for it.
///
/// # Errors
/// When the target is gone or may not be looked at.
pub fn status(
    target: &dyn Target,
    build_id: &Hex,
    patch: Option<(&Patch, &Hex)>,
) -> Result<Status, TargetError> {
    let mut found = find_all(target)?;
    found.retain(|found| found.record.build_id == *build_id);
    let mut status = Status {
        standing: Standing::Unpatched,
        live: Vec::new(),
        threads: Vec::new(),
        reason: None,
    };
    let is_open = |f: &&Found| !matches!(f.state, State::Applied | State::Reverted);
    if let Some(open) = found.iter().find(is_open) {
        status.standing = Standing::Unfinished;
        let name = &open.record.name;
        status.reason = Some(format!(
            "a tool works on {name}, or died: see invivo recover"
        ));
        return Ok(status);
    }
    let live: Vec<&Record> = found
        .iter()
        .filter(|found| found.state == State::Applied)
        .map(|found| &found.record)
        .collect();
    status.live = live.iter().map(|record| record.name.clone()).collect();
    let suffices = |record: &&&Record| {
        patch.is_none_or(|(patch, id)| record.id == *id || record.sequence > patch.order.sequence)
    };
    if let Some(told) = live
        .iter()
        .find_map(|record| record.told_missing(&record.missing(target)))
    {
        status.reason = Some(told);
        return Ok(status);
    }
    if let Some(record) = live.iter().find(suffices) {
        let stacks = target.glimpse()?;
        status.threads = in_old_code(target, &stacks, record);
        status.standing = if status.threads.is_empty() {
            status.reason = unseen(&stacks);
            Standing::Applied
        } else {
            Standing::Pending
        };
        return Ok(status);
    }
    if !found.is_empty() && live.is_empty() {
        status.standing = Standing::Reverted;
        let is_lost = |found: &&Found| found.noted == State::Applied;
        status.reason = found.iter().find(is_lost).map(|lost| {
            let name = &lost.record.name;
            format!("{name} was lost when its image was closed, or gave pages of its code back")
        });
    }
    if let Some((patch, id)) = patch {
        match Preflight::new(target, patch, id) {
            Ok(_) if status.standing == Standing::Unpatched => status.standing = Standing::Checked,
            Ok(_) => {}
            Err(ApplyError::Target(error)) => return Err(error),
            Err(error) => {
                status.standing = Standing::Refused;
                status.reason = Some(error.to_string());
            }
        }
    }
    Ok(status)
}

/// What is to be said of threads that ran whenever they were looked at.
fn unseen(stacks: &[Stack]) -> Option<String> {
    match stacks.iter().filter(|stack| stack.running).count() {
        0 => None,
        1 => Some("1 thread runs all the time: whether in old code is not seen".to_owned()),
        all => Some(format!(
            "{all} threads run all the time: whether in old code is not seen"
        )),
    }
}

/// Waiting threads that have a return address in what `record` replaces.
fn in_old_code(target: &dyn Target, stacks: &[Stack], record: &Record) -> Vec<Blocker> {
    let ranges: Vec<(String, Range<LiveAddr>)> = record
        .replaced
        .iter()
        .map(|(at, size)| {
            (
                record.name.clone(),
                *at..LiveAddr(at.0.saturating_add(*size)),
            )
        })
        .collect();
    let mut found = blockers(stacks, &ranges);
    found.retain(|blocker| blocker.function.is_some());
    for blocker in &mut found {
        let frames: Vec<LiveAddr> = blocker.frames.iter().map(|frame| frame.at).collect();
        let inside = frames.iter().position(|at| {
            ranges
                .iter()
                .any(|(_, range)| range.contains(at) || range.end == *at)
        });
        let name = inside.and_then(|n| target.places(&frames[..=n]).pop().flatten());
        blocker.function = name.or(blocker.function.take());
    }
    found
}
