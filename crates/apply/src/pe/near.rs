//! Places for memory that is so near to an image that jumps of 32 bits lead from all of the one to all of
//! the other.

use std::iter::once;
use std::ops::Range;

use invivo_image::LiveAddr;

/// Memory of Windows that is reserved begins at a multiple of this.
const GRANULARITY: u64 = 0x1_0000;

/// How far a jump of 32 bits leads, less what is between its ends and those of an image.
const REACH: u64 = 0x7f00_0000;

/// The first address behind what a process can use.
const TOP: u64 = 0x7fff_ffff_0000;

/// Where in `free` memory `size` bytes can be, the best place first: right behind `image` if it can be,
/// as Windows keeps it.
pub fn places_near(
    free: impl Iterator<Item = Range<u64>>,
    image: &Range<LiveAddr>,
    size: u64,
) -> Vec<u64> {
    let low = image.end.0.saturating_sub(REACH).max(GRANULARITY);
    let high = image.start.0.saturating_add(REACH).min(TOP);
    let fits = free.filter_map(|free| {
        let start = free.start.max(low).checked_next_multiple_of(GRANULARITY)?;
        (start.checked_add(size)? <= free.end.min(high)).then_some(start)
    });
    let mut places: Vec<u64> = fits.collect();
    places.sort_by_key(|place| (*place < image.end.0, place.abs_diff(image.end.0)));
    places
}

/// What is free between ranges that are in use, which are in order.
pub(crate) fn between(used: impl Iterator<Item = Range<u64>>) -> impl Iterator<Item = Range<u64>> {
    let mut end = 0;
    used.chain(once(TOP..TOP)).filter_map(move |used| {
        let free = end..used.start;
        end = end.max(used.end);
        (free.start < free.end).then_some(free)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_behind_or_before_and_never_too_far() {
        let image = LiveAddr(0x1_4000_0000)..LiveAddr(0x1_4001_8000);
        let used = [
            image.start.0..image.end.0,
            0x1_4002_0000..0x1_4003_0000,
            0x2_0000_0000..0x2_0001_0000,
        ];
        let free: Vec<_> = between(used.into_iter()).collect();
        assert_eq!(free[1], 0x1_4001_8000..0x1_4002_0000);
        assert_eq!(free.last(), Some(&(0x2_0001_0000..TOP)));
        let places = |size| places_near(free.clone().into_iter(), &image, size);
        // Where memory may begin in the gap behind it another one begins already.
        assert_eq!(
            places(0x8000),
            [
                0x1_4003_0000,
                image.end.0.next_multiple_of(GRANULARITY) - REACH
            ]
        );
        assert!(places(0x2_0000_0000).is_empty(), "no room that is near");
    }
}
