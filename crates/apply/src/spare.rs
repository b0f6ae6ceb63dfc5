//! A clean copy of the code that patches change: the pages of its file, shown once more where nobody
//! looks.
//!
//! Pages on which hooks are cannot be exchanged for the file's own: for an instant no hook would be
//! there. So where text is moved for the first time, the file's pages are moved aside once more and
//! stay there for as long as a patch is live. A later patch edits a copy of them, and moves that over
//! the text in one instant; and who takes the last patch back gives them back.

use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;

use crate::found::Found;
use crate::{Module, Record, Region, State, Target, find};

/// Where the clean copy of an image's code is kept.
#[derive(Clone, Debug)]
pub(crate) struct Spare {
    image: Range<LiveAddr>,
    /// The place that stands for the start of the image; `None` if none was chosen yet.
    area: Option<LiveAddr>,
}

impl Spare {
    /// Of an image for which there are these records.
    pub(crate) fn of<'r>(module: &Module, records: impl Iterator<Item = &'r Record>) -> Spare {
        Spare::noted(module.start, records).unwrap_or(Spare {
            image: module.start..module.end,
            area: None,
        })
    }

    /// The one that some record of the image at `start` tells of.
    pub(crate) fn noted<'r>(
        start: LiveAddr,
        mut records: impl Iterator<Item = &'r Record>,
    ) -> Option<Spare> {
        let record = records.find(|record| record.module == start && record.spare.1 > 0)?;
        let (area, size) = record.spare;
        Some(Spare {
            image: start..LiveAddr(start.0.saturating_add(size)),
            area: Some(area),
        })
    }

    /// What a record tells of it.
    pub(crate) fn note(&self) -> (LiveAddr, u64) {
        let size = self.image.end.0.saturating_sub(self.image.start.0);
        self.area.map_or((LiveAddr(0), 0), |area| (area, size))
    }

    /// Chooses a place where nothing is, and nothing will be at `taken`.
    pub(crate) fn choose(&mut self, regions: &[Region], taken: Range<LiveAddr>) {
        let mut regions = regions.to_vec();
        regions.push(Region {
            range: taken,
            executable: true,
            writable: false,
            file: None,
            offset: 0,
        });
        regions.sort_by_key(|region| region.range.start);
        let size = self.image.end.0.saturating_sub(self.image.start.0);
        self.area = find::anywhere(&regions, size, self.image.start).ok();
    }

    /// True if `range` may have a copy.
    pub(crate) fn may_hold(&self, range: &Range<LiveAddr>) -> bool {
        self.image.start < range.start && range.end <= self.image.end
    }

    /// Where the copy of this part of the text is, or will be.
    pub(crate) fn copy(&self, text: &Range<LiveAddr>) -> Option<Range<LiveAddr>> {
        let behind = text.start.checked_sub(self.image.start)?;
        let start = self.area?.checked_add(behind)?;
        Some(start..start.checked_add(text.end.checked_sub(text.start)?)?)
    }

    /// The copies that are there, each with the text that it is of; `text` is a piece of the image's
    /// code, by which they are known: they show the same file, as far apart.
    pub(crate) fn pieces(&self, regions: &[Region], text: &Region) -> Vec<Range<LiveAddr>> {
        let (Some(area), Some(file)) = (self.area, &text.file) else {
            return Vec::new();
        };
        let size = self.image.end.0.saturating_sub(self.image.start.0);
        let place = |region: &Region| {
            let behind = region.range.start.0.checked_sub(area.0)?;
            let at = self.image.start.0.checked_add(behind)?;
            let length = region.range.end.0 - region.range.start.0;
            // The first byte of the image, if the file is mapped without holes.
            let of_text = text.range.start.0.checked_sub(text.offset);
            let is_it = behind.checked_add(length)? <= size
                && region.executable
                && !region.writable
                && region.file.as_ref() == Some(file)
                && at.checked_sub(region.offset) == of_text
                && behind > 0;
            is_it.then_some(LiveAddr(at)..LiveAddr(at + length))
        };
        regions.iter().filter_map(place).collect()
    }
}

/// The clean copies that `record`, one of `all`, tells of, if no patch that is live, or may be, has use
/// for them.
///
/// Where the image was closed it is not known any more which they are, and they stay: pages of
/// a file.
pub(crate) fn left(regions: &[Region], record: &Record, all: &[Found]) -> Vec<Range<LiveAddr>> {
    let Some(spare) = Spare::noted(record.module, std::iter::once(record)) else {
        return Vec::new();
    };
    let is_used = |found: &Found| {
        let other = &found.record;
        let settled = matches!(found.state, State::Reverted | State::Prepared);
        let is_same = other.module == record.module && other.spare.0 == record.spare.0;
        other.region != record.region && !settled && !found.gone && is_same
    };
    let is_text = |region: &&Region| {
        let hook = record.hooks.first();
        hook.is_some_and(|hook| region.range.contains(&hook.at)) && region.executable
    };
    let text = regions.iter().find(is_text);
    let Some(text) = text.filter(|_| !all.iter().any(is_used)) else {
        return Vec::new();
    };
    let pieces = spare.pieces(regions, text);
    pieces
        .iter()
        .filter_map(|piece| spare.copy(piece))
        .collect()
}

/// Gives the clean copies back of which nobody has use any more, once no patch is live. What cannot
/// be given back now is by the next command: it is in nobody's way.
pub(crate) fn give_back(target: &mut dyn Target, all: &[Found]) -> Duration {
    let settled = |found: &&Found| {
        let settled = matches!(found.state, State::Reverted | State::Prepared);
        settled && !found.gone && found.record.spare.1 > 0
    };
    let mut settled = all.iter().filter(settled).peekable();
    if settled.peek().is_none() {
        return Duration::ZERO;
    }
    let Ok(regions) = target.regions() else {
        return Duration::ZERO;
    };
    let copies: Vec<_> = settled
        .flat_map(|found| left(&regions, &found.record, all))
        .collect();
    if copies.is_empty() {
        return Duration::ZERO;
    }
    let visited =
        target.visit(&mut |visit| copies.iter().try_for_each(|copy| visit.unmap(copy.clone())));
    visited.unwrap_or_default()
}
