//! Whether the places that change are as they must be before the first of them is written.

use invivo_image::LiveAddr;

use crate::clean::CleanCode;
use crate::found::find_all;
use crate::pages::Pages;
use crate::switch::Change;
use crate::{ApplyError, State, Target, TargetError, refused};

/// The changes, if every place of them is as it must be; each begins with what is there.
///
/// Only what a patch left that was taken back may be there instead: padding that nobody uses.
pub(crate) fn as_expected(
    target: &dyn Target,
    changes: Vec<Change>,
) -> Result<Vec<Change>, ApplyError> {
    let mut pages = Pages::of(target);
    let mut left = Left::of(target);
    let checked = changes.into_iter().map(|change| {
        if pages.holds(change.at, &change.from)? {
            return Ok(change);
        }
        match left.at(&change)? {
            Some(from) => Ok(Change { from, ..change }),
            None => unexpected(change.at),
        }
    });
    checked.collect()
}

/// The first place that holds neither what its change begins with nor what it makes of it: pages that
/// could not be swapped may have come back changed.
pub(crate) fn first_unexpected(
    pages: &mut Pages<'_>,
    changes: &[Change],
) -> Result<Option<LiveAddr>, TargetError> {
    for change in changes {
        let is_there = |pages: &mut Pages<'_>, bytes| pages.holds(change.at, bytes);
        if !is_there(pages, &change.from)? && !is_there(pages, &change.to)? {
            return Ok(Some(change.at));
        }
    }
    Ok(None)
}

/// The refusal of a place that is not as it must be.
pub(crate) fn unexpected<T>(at: LiveAddr) -> Result<T, ApplyError> {
    refused(format!(
        "the code at {at} is not what it was a moment ago: its image was closed, or another program \
         has changed it; nothing was written, so try again"
    ))
}

/// Padding that patches left in the target that were taken back.
pub(crate) struct Left<'t> {
    target: &'t dyn Target,
    code: Option<CleanCode<'t>>,
}

impl<'t> Left<'t> {
    pub(crate) fn of(target: &'t dyn Target) -> Left<'t> {
        Left { target, code: None }
    }

    /// What is at the place of `change`, if that is what such a patch left of what it begins with.
    pub(crate) fn at(&mut self, change: &Change) -> Result<Option<Vec<u8>>, ApplyError> {
        let target = self.target;
        let code = match &self.code {
            Some(code) => code,
            None => {
                let is_back = |state| matches!(state, State::Reverted | State::Prepared);
                let found = find_all(target)?.into_iter();
                let back = found.filter(|found| is_back(found.noted) && !found.gone);
                let records = back.map(|found| found.record).collect();
                self.code.insert(CleanCode { target, records })
            }
        };
        if code.read(change.at, change.from.len() as u64)? != change.from {
            return Ok(None);
        }
        let mut now = vec![0; change.from.len()];
        target.read(change.at, &mut now)?;
        Ok(Some(now))
    }
}
