//! The quiet ways of the switch: pages of text are exchanged for others, in one instant, and nobody
//! stops.

use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;

use crate::spare::Spare;
use crate::switch::{Change, Switched};
use crate::transaction::SwitchKind;
use crate::{ApplyError, Region, Target, TargetError, find};

const PAGE: u64 = 0x1000;
/// Text that is moved at most, in bytes: beyond that, reading it takes longer than
/// stopping the threads does.
const LARGEST_MOVE: u64 = 64 << 20;

/// What is noted in the target before text moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aside {
    /// Where pages will be while they are changed, and how many bytes of them.
    pub(crate) scratch: (LiveAddr, u64),
    /// Which text they are, or are to take the place of.
    pub(crate) text: (LiveAddr, u64),
    /// Where clean copies are kept (see [`Spare::note`]).
    pub(crate) spare: (LiveAddr, u64),
}

/// Notes in the target where text pages are moved to.
pub(crate) type Journal<'j> = dyn FnMut(&mut dyn Target, Aside) -> Result<(), TargetError> + 'j;

/// How pages are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// They show what their file holds: they are moved aside, edited, and moved back.
    Swap,
    /// They will show what their file holds: they are moved aside and given back, and so are the copies.
    Drop,
    /// A clean copy of them is edited, and moved over them.
    Copy,
}

/// A way in which the places change without a stop.
#[derive(Debug)]
pub(crate) struct Quiet {
    pub(crate) how: How,
    range: Range<LiveAddr>,
    /// What the pages show, and what they shall show.
    now: Vec<u8>,
    then: Vec<u8>,
    /// What their file holds.
    original: Vec<u8>,
    scratch: LiveAddr,
    spare: Option<Spare>,
    /// What was noted of it before.
    noted: (LiveAddr, u64),
    /// Text of which there is no clean copy yet.
    missing: Vec<Range<LiveAddr>>,
    /// Where the clean copies are.
    copies: Vec<Range<LiveAddr>>,
}

/// The way in which `changes` are made without a stop; `None` if there is none. `spare` is where
/// clean copies of the image's code are, or may be.
pub(crate) fn quiet_way(
    target: &dyn Target,
    changes: &[Change],
    spare: Option<&Spare>,
) -> Result<Option<Quiet>, ApplyError> {
    let ends = changes.iter().map(|change| change.range().end.0);
    let (Some(first), Some(last)) = (first_page(changes), ends.max()) else {
        return Ok(None);
    };
    let range = first..LiveAddr(last.next_multiple_of(PAGE));
    let size = range.end.0 - range.start.0;
    let regions = target.regions()?;
    let parts = parts(&regions, &range);
    let is_whole = parts.last().is_some_and(|part| part.range.end == range.end);
    if !is_whole || size > LARGEST_MOVE {
        return Ok(None);
    }
    let Some(original) = originals(target, &parts)? else {
        return Ok(None);
    };
    let mut now = vec![0; original.len()];
    target.read(range.start, &mut now)?;
    let mut then = now.clone();
    for change in changes {
        let from = usize::try_from(change.at.0 - range.start.0).expect("inside a range in memory");
        then[from..from + change.to.len()].copy_from_slice(&change.to);
    }
    let Ok(scratch) = find::anywhere(&regions, size, range.start) else {
        return Ok(None);
    };
    // The kernel moves pages of one mapping at once.
    let is_one = parts.len() == 1;
    let how = if is_one && now == original {
        How::Swap
    } else if is_one && then == original {
        How::Drop
    } else {
        How::Copy
    };
    let mut quiet = Quiet {
        how,
        now,
        then,
        original,
        scratch,
        // What begins a file is taken for an image, and nobody should find one twice.
        spare: spare
            .filter(|spare| parts[0].offset > 0 && spare.may_hold(&range))
            .cloned(),
        noted: spare.map_or((LiveAddr(0), 0), Spare::note),
        missing: Vec::new(),
        copies: Vec::new(),
        range,
    };
    let is_kept = quiet.look_for_copies(target, &regions, &parts)?;
    // What is moved stays locked in memory; the file's pages that take its place are not.
    if target.locks_memory()? {
        (quiet.how, quiet.missing) = (How::Swap, Vec::new());
        return Ok(Some(quiet).filter(|_| how != How::Copy));
    }
    Ok(Some(quiet).filter(|quiet| quiet.how != How::Copy || is_kept))
}

/// The mappings that `range` lies in, as far as they are code of one file and have no gap, each
/// with the part of it.
fn parts(regions: &[Region], range: &Range<LiveAddr>) -> Vec<Region> {
    let mut parts: Vec<Region> = Vec::new();
    for region in regions {
        let start = region.range.start.max(range.start);
        let end = region.range.end.min(range.end);
        let next = parts.last().map_or(range.start, |part| part.range.end);
        if start >= end {
            continue;
        }
        let is_text = region.executable && !region.writable && region.file.is_some();
        let is_other = parts.first().is_some_and(|part| part.file != region.file);
        if start != next || !is_text || is_other {
            return Vec::new();
        }
        parts.push(Region {
            range: start..end,
            offset: region.offset.saturating_add(start.0 - region.range.start.0),
            ..region.clone()
        });
    }
    parts
}

/// What the file holds of all of them.
fn originals(target: &dyn Target, parts: &[Region]) -> Result<Option<Vec<u8>>, TargetError> {
    let mut all = Vec::new();
    for part in parts {
        match target.original(part.range.clone())? {
            Some(bytes) => all.extend(bytes),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

impl Quiet {
    fn size(&self) -> u64 {
        self.range.end.0 - self.range.start.0
    }

    /// Where the pages are while they are changed.
    fn moved(&self) -> Range<LiveAddr> {
        self.scratch..LiveAddr(self.scratch.0.saturating_add(self.size()))
    }

    /// Where `range` of the text is in what was read of it.
    fn bytes(&self, range: &Range<LiveAddr>) -> Range<usize> {
        let index = |at: LiveAddr| usize::try_from(at.0 - self.range.start.0).unwrap_or(usize::MAX);
        index(range.start)..index(range.end)
    }

    /// Finds the clean copies that there are, and which are missing. True if all of them are right
    /// or can be made.
    fn look_for_copies(
        &mut self,
        target: &dyn Target,
        regions: &[Region],
        parts: &[Region],
    ) -> Result<bool, TargetError> {
        let moved = self.moved();
        let Some(spare) = &mut self.spare else {
            return Ok(false);
        };
        let pieces = spare.pieces(regions, &parts[0]);
        if pieces.is_empty() {
            // Somebody else may be by now where they were.
            spare.choose(regions, moved);
        }
        let copies: Option<Vec<_>> = pieces.iter().map(|piece| spare.copy(piece)).collect();
        let (Some(copies), Some(_)) = (copies, spare.copy(&self.range)) else {
            self.spare = None;
            return Ok(false);
        };
        self.copies = copies;
        let mut missing = Vec::new();
        let (mut is_right, mut from) = (true, self.range.start);
        for piece in pieces {
            let (start, end) = (piece.start.max(from), piece.end.min(self.range.end));
            if start >= end {
                continue;
            }
            missing.push(from..start);
            from = end;
            let (at, part) = (self.copy_of(&(start..end))?, self.bytes(&(start..end)));
            is_right &= target.holds(at.start, &self.original[part])?;
        }
        missing.push(from..self.range.end);
        // A copy of what is not clean would not be clean, and the kernel moves what one mapping has.
        self.missing = parts
            .iter()
            .flat_map(|part| missing.iter().map(|missing| (&part.range, missing)))
            .map(|(part, missing)| part.start.max(missing.start)..part.end.min(missing.end))
            .filter(|both| both.start < both.end)
            .collect();
        let is_clean = |missing: &Range<LiveAddr>| {
            let bytes = self.bytes(missing);
            self.now[bytes.clone()] == self.original[bytes]
        };
        Ok(is_right && self.missing.iter().all(is_clean))
    }

    /// Bytes of text of which a clean copy is put by.
    pub(crate) fn copied(&self) -> u64 {
        let missing = self.missing.iter();
        missing.map(|text| text.end.0 - text.start.0).sum()
    }

    fn aside(&self, scratch: LiveAddr) -> Aside {
        Aside {
            scratch: (scratch, self.size()),
            text: (self.range.start, self.size()),
            spare: self.spare.as_ref().map_or(self.noted, Spare::note),
        }
    }

    /// Where the copy of a part of the text is.
    fn copy_of(&self, range: &Range<LiveAddr>) -> Result<Range<LiveAddr>, TargetError> {
        let copy = self.spare.as_ref().and_then(|spare| spare.copy(range));
        copy.ok_or_else(|| {
            TargetError::Unsupported(format!("no copy of the code at {} is kept", range.start))
        })
    }

    /// Exchanges the pages. `changes` is what they were asked for.
    pub(crate) fn make(
        &self,
        target: &mut dyn Target,
        changes: &[Change],
        journal: &mut Journal<'_>,
    ) -> Result<Switched, ApplyError> {
        let aside = self.aside(self.scratch);
        journal(target, aside)?;
        let mut refused = false;
        let visited = match self.how {
            How::Swap => {
                make_private(target, changes)?;
                self.swap(target, changes, &mut refused)
            }
            How::Drop => target.visit(&mut |visit| {
                let lifted = visit.lift(self.range.clone(), self.scratch);
                refused = matches!(lifted, Err(TargetError::System { .. }));
                lifted?;
                visit.unmap(self.moved())?;
                let mut copies = self.copies.iter();
                copies.try_for_each(|copy| visit.unmap(copy.clone()))
            }),
            How::Copy => self.copy(target, &mut refused),
        };
        match visited {
            Ok(visited) => Ok(Switched {
                kind: Some(SwitchKind::PageSwap),
                visited,
                stopped: Duration::ZERO,
                used_up: self.how == How::Drop,
            }),
            // The call may still be made.
            Err(error @ (TargetError::Unfinished(_) | TargetError::Gone(_))) => Err(error.into()),
            // What is at that place is not the patch's: another thread was faster. So nobody may take
            // it away later.
            Err(error) if refused => {
                journal(target, self.aside(LiveAddr(0)))?;
                Err(error.into())
            }
            Err(error) => {
                end_move(target, aside.scratch, self.range.start)?;
                Err(error.into())
            }
        }
    }

    fn swap(
        &self,
        target: &mut dyn Target,
        changes: &[Change],
        refused: &mut bool,
    ) -> Result<Duration, TargetError> {
        target.visit(&mut |visit| {
            let lifted = visit.lift(self.range.clone(), self.scratch);
            *refused = matches!(lifted, Err(TargetError::System { .. }));
            lifted?;
            // The file's own pages show now, and are as good at another place.
            for missing in &self.missing {
                match visit.lift(missing.clone(), self.copy_of(missing)?.start) {
                    // Without a copy the next patch will stop the threads for a moment.
                    Ok(()) | Err(TargetError::System { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            for change in changes {
                let place = LiveAddr(self.scratch.0 + (change.at.0 - self.range.start.0));
                if let Err(error) = visit.write(place, &change.to) {
                    // The file's pages, which show now, are what was there before.
                    visit.unmap(self.moved())?;
                    return Err(error);
                }
            }
            visit.lower_again(self.scratch, self.range.clone())
        })
    }

    /// The copy is written while nobody is held: who holds a thread for it would hold it for as long as
    /// the kernel takes to copy each page.
    fn copy(&self, target: &mut dyn Target, refused: &mut bool) -> Result<Duration, TargetError> {
        let copy = self.copy_of(&self.range)?;
        let copied = target.visit(&mut |visit| {
            let copied = self
                .missing
                .iter()
                .try_for_each(|missing| visit.lift(missing.clone(), self.copy_of(missing)?.start));
            let copied = copied.and_then(|()| visit.lift(copy.clone(), self.scratch));
            *refused = matches!(copied, Err(TargetError::System { .. }));
            copied
        })?;
        for (at, bytes) in self.edits() {
            target.write(LiveAddr(self.scratch.0.saturating_add(at)), &bytes)?;
        }
        if !target.holds(self.scratch, &self.then)? {
            return Err(self.changed());
        }
        let moved = target.visit(&mut |visit| {
            // Until a thread was held its library may have been closed, and something else be there.
            let mut now = vec![0; self.now.len()];
            let read = visit.read(self.range.start, &mut now);
            if read.is_err() || now != self.now {
                // Nobody needs the copy, and it is never what goes there instead.
                visit.unmap(self.moved())?;
                return Err(self.changed());
            }
            visit.lower_again(self.scratch, self.range.clone())
        })?;
        Ok(copied + moved)
    }

    /// Nobody else may have changed the text meanwhile, as that would be lost.
    fn changed(&self) -> TargetError {
        TargetError::Unsupported(format!(
            "the code at {} changes meanwhile",
            self.range.start
        ))
    }

    /// What differs from the file's own pages, page by page.
    fn edits(&self) -> Vec<(u64, Vec<u8>)> {
        let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
        let pages = self.then.chunks(page).zip(self.original.chunks(page));
        let edit = |(number, (then, original)): (u64, (&[u8], &[u8]))| {
            let differs = |index: &usize| then[*index] != original[*index];
            let first = (0..then.len()).find(differs)?;
            let last = (0..then.len()).rfind(differs)?;
            Some((number * PAGE + first as u64, then[first..=last].to_vec()))
        };
        (0..).zip(pages).filter_map(edit).collect()
    }
}

/// Ends a move of text that was cut off: where something shows at `place`, it is what was there
/// before, and what was moved aside, or was to go there, is given back. Where nothing shows, the
/// moved pages are the only ones, and go there.
pub(crate) fn end_move(
    target: &mut dyn Target,
    (scratch, size): (LiveAddr, u64),
    place: LiveAddr,
) -> Result<(), ApplyError> {
    let end = |start: LiveAddr| LiveAddr(start.0.saturating_add(size));
    let regions = target.regions()?;
    // Should nothing have been moved yet, the target may have put something else there.
    let is_text = |r: &Region| r.executable && r.file.is_some();
    let aside = |r: &Region| is_text(r) && r.range.start == scratch && r.range.end <= end(scratch);
    if size == 0 || !regions.iter().any(aside) {
        return Ok(());
    }
    // A move takes all of what is in its place away, or nothing.
    let shows = |r: &Region| r.range.start < end(place) && place < r.range.end;
    if regions.iter().any(shows) {
        target.visit(&mut |visit| visit.unmap(scratch..end(scratch)))?;
        return Ok(());
    }
    let lowered = target.visit(&mut |visit| visit.lower(scratch, place..end(place)));
    match lowered {
        Ok(_) => Ok(()),
        Err(error @ (TargetError::Unfinished(_) | TargetError::Gone(_))) => Err(error.into()),
        Err(error) => Err(ApplyError::Inconsistent(format!(
            "the code at {place} could not be moved back from {scratch}: {error}"
        ))),
    }
}

/// The page of the first place that changes: where text that is moved begins.
pub(crate) fn first_page(changes: &[Change]) -> Option<LiveAddr> {
    let first = changes.iter().map(|change| change.at.0).min()?;
    Some(LiveAddr(first & !(PAGE - 1)))
}

/// Gives the target its own copies of the pages, as the changes will need them anyway: a
/// copy that is made only when they are written would take longer than all else that the
/// thread is held for. What is written is what stands there (see `quiet_way`), so nobody
/// can tell, and a tool that dies here leaves a page of the same bytes.
fn make_private(target: &mut dyn Target, changes: &[Change]) -> Result<(), TargetError> {
    for change in changes {
        target.write(change.at, &change.from)?;
    }
    Ok(())
}
