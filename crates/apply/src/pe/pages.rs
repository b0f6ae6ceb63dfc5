//! Pages of code that are opened for a moment to be written: a tool that dies in that moment leaves them
//! open, and the next one closes them.

use std::collections::BTreeSet;
use std::ops::Range;

use invivo_image::LiveAddr;

use crate::hpat::Host;
use crate::{Protection, Target, TargetError};

const PAGE: u64 = 0x1000;

fn pages(places: &[Range<LiveAddr>]) -> BTreeSet<u64> {
    let pages = places.iter().flat_map(|place| {
        let first = place.start.0 & !(PAGE - 1);
        (first..place.end.0).step_by(PAGE as usize)
    });
    pages.collect()
}

fn is_open(target: &dyn Target, page: u64) -> Result<bool, TargetError> {
    let found = target.region_at(LiveAddr(page))?;
    Ok(found.is_some_and(|region| region.executable && region.writable))
}

/// Pages of these places that can be written and executed before anybody opens them: some programs want
/// it so.
pub(crate) fn open_pages(
    target: &dyn Target,
    places: &[Range<LiveAddr>],
) -> Result<Vec<u64>, TargetError> {
    let mut open = Vec::new();
    for page in pages(places) {
        if is_open(target, page)? {
            open.push(page);
        }
    }
    Ok(open)
}

/// Closes the pages of these places that a tool which died left open; those in `own` were open before.
pub(crate) fn close_pages(
    host: &mut dyn Host,
    places: &[Range<LiveAddr>],
    own: &[u64],
) -> Result<(), TargetError> {
    for page in pages(places).into_iter().filter(|page| !own.contains(page)) {
        if is_open(host, page)? {
            let range = LiveAddr(page)..LiveAddr(page + PAGE);
            host.protect(range, Protection::ReadExecute)?;
        }
    }
    Ok(())
}

/// The same of all of an image: pages that can be written and executed.
pub(crate) fn open_in(
    target: &dyn Target,
    image: &Range<LiveAddr>,
) -> Result<Vec<u64>, TargetError> {
    let (mut open, mut next) = (Vec::new(), image.start);
    while next < image.end {
        let Some(region) = target.region_at(next)? else {
            next = LiveAddr(next.0.saturating_add(PAGE));
            continue;
        };
        let end = region.range.end.min(image.end);
        if region.executable && region.writable {
            open.extend((next.0..end.0).step_by(PAGE as usize));
        }
        // It always goes on.
        next = end.max(LiveAddr(next.0.saturating_add(PAGE)));
    }
    Ok(open)
}
