//! A clean copy of the code that patches change: the pages of its file, shown once more where nobody
//! looks.
//!
//! Pages on which hooks are cannot be exchanged for the file's own: for an instant no hook would be
//! there. So where text is moved for the first time, the file's pages are moved aside once more and
//! stay there for as long as a patch is live. A later patch edits a copy of them, and moves that over
//! the text in one instant; and who takes the last patch back moves them themselves.

use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;

use crate::found::{Found, find_all};
use crate::{Module, Record, Region, State, Target, TargetError, find};

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

    /// Where the image begins.
    pub(crate) fn image(&self) -> LiveAddr {
        self.image.start
    }

    /// What a record tells of it.
    pub(crate) fn note(&self) -> (LiveAddr, u64) {
        let size = self.image.end.0.saturating_sub(self.image.start.0);
        self.area.map_or((LiveAddr(0), 0), |area| (area, size))
    }

    /// Chooses a place if there is none, where nothing is and nothing will be at `taken`.
    pub(crate) fn choose(&mut self, regions: &[Region], taken: Range<LiveAddr>) {
        if self.area.is_some() {
            return;
        }
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

    /// Where the copy of what is at `at` is, or will be.
    pub(crate) fn of_text(&self, at: LiveAddr) -> Option<LiveAddr> {
        let behind = at.0.checked_sub(self.image.start.0)?;
        self.area?.checked_add(behind)
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

/// Where the copy of what is at `at` is by what a record notes of an image that begins at `image`.
pub(crate) fn copy_at(
    (area, size): (LiveAddr, u64),
    image: LiveAddr,
    at: LiveAddr,
) -> Option<LiveAddr> {
    let behind = at.0.checked_sub(image.0).filter(|behind| *behind < size)?;
    area.checked_add(behind)
}

/// The clean copies that `record` tells of, if no patch that is live, or may be, has use for them.
///
/// Where the image was closed it is not known any more which they are, and they stay: pages of
/// a file, which take no memory of their own.
pub(crate) fn left(
    target: &dyn Target,
    record: &Record,
) -> Result<Vec<Range<LiveAddr>>, TargetError> {
    let Some(spare) = Spare::noted(record.module, std::iter::once(record)) else {
        return Ok(Vec::new());
    };
    let is_used = |found: &Found| {
        let other = &found.record;
        let settled = matches!(found.noted, State::Reverted | State::Prepared);
        other.region != record.region && !settled && other.spare.0 == record.spare.0
    };
    if find_all(target)?.iter().any(is_used) {
        return Ok(Vec::new());
    }
    let regions = target.regions()?;
    let is_text = |region: &&Region| {
        let hook = record.hooks.first();
        hook.is_some_and(|hook| region.range.contains(&hook.at)) && region.executable
    };
    let Some(text) = regions.iter().find(is_text) else {
        return Ok(Vec::new());
    };
    let pieces = spare.pieces(&regions, text).into_iter();
    let there = |piece: Range<LiveAddr>| {
        let start = spare.of_text(piece.start)?;
        Some(start..start.checked_add(piece.end.0 - piece.start.0)?)
    };
    Ok(pieces.filter_map(there).collect())
}

/// Gives the clean copies back that `record` tells of, once its patch is not live any more.
pub(crate) fn give_back(target: &mut dyn Target, record: &Record) -> Result<Duration, TargetError> {
    let copies = left(target, record)?;
    if copies.is_empty() {
        return Ok(Duration::ZERO);
    }
    target.visit(&mut |visit| copies.iter().try_for_each(|copy| visit.unmap(copy.clone())))
}
