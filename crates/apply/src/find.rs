//! Room for a patch: within reach of the image, in nobody's way.

use std::ops::Range;

use invivo_image::LiveAddr;

use crate::{ApplyError, Module, Region, refused};

/// `jmp rel32` reaches this far; a little less, so that no sum overflows.
const REACH: u64 = 0x7fff_0000;
/// `vm.mmap_min_addr` on every distribution.
const LOWEST: u64 = 0x1_0000;
/// End of user space with four-level page tables.
const HIGHEST: u64 = 0x7fff_ffff_f000;
/// Left free on both sides: a heap or stack that grows needs room.
const MARGIN: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
const HUGE_PAGE: u64 = 0x20_0000;

/// A free range of `size` bytes from which everything in `module` can be reached.
///
/// `low`: also below 2 GiB, because the patch holds 32-bit absolute addresses.
pub(crate) fn room(
    regions: &[Region],
    module: &Module,
    size: u64,
    low: bool,
) -> Result<Range<LiveAddr>, ApplyError> {
    let least = module.end.0.saturating_sub(REACH).max(LOWEST);
    let mut most = module.start.0.saturating_add(REACH).min(HIGHEST);
    if low {
        most = most.min(0x7fff_f000);
    }
    let holes = holes(regions, least, most);
    let fits = |hole: &&Range<u64>, margin: u64| hole.end - hole.start >= size + 2 * margin;
    for margin in [MARGIN, 0] {
        // Below the image first: heaps grow upwards behind programs.
        let below = holes
            .iter()
            .rev()
            .find(|hole| hole.end <= module.start.0 && fits(hole, margin));
        if let Some(hole) = below {
            let start = (hole.end - margin - size) & !(PAGE - 1);
            return Ok(LiveAddr(start)..LiveAddr(start + size));
        }
        let above = holes
            .iter()
            .rev()
            .find(|hole| hole.start >= module.end.0 && fits(hole, margin));
        if let Some(hole) = above {
            let start = (hole.end - margin - size) & !(PAGE - 1);
            return Ok(LiveAddr(start)..LiveAddr(start + size));
        }
    }
    refused(format!(
        "no free {size} bytes within 2 GiB of {}",
        module.path
    ))
}

/// A free range of `size` bytes anywhere above `LOWEST`, for pages that move, which begins as far
/// behind a border of huge pages as `like`: so the kernel moves whole tables of pages at once.
pub(crate) fn anywhere(
    regions: &[Region],
    size: u64,
    like: LiveAddr,
) -> Result<LiveAddr, ApplyError> {
    let holes = holes(regions, LOWEST, HIGHEST);
    let largest = holes.iter().max_by_key(|hole| hole.end - hole.start);
    let needed = size.saturating_add(2 * HUGE_PAGE);
    match largest.filter(|hole| hole.end - hole.start >= needed) {
        Some(hole) => {
            let middle = hole.start + (hole.end - hole.start - size) / 2;
            let start = (middle & !(HUGE_PAGE - 1)) + like.0 % HUGE_PAGE;
            Ok(LiveAddr(start & !(PAGE - 1)))
        }
        None => refused("no free address space"),
    }
}

fn holes(regions: &[Region], least: u64, most: u64) -> Vec<Range<u64>> {
    let mut holes = Vec::new();
    let mut from = least;
    for region in regions {
        let end = region.range.start.0.min(most);
        if end > from {
            holes.push(from..end & !(PAGE - 1));
        }
        from = from.max(region.range.end.0);
    }
    if most > from {
        holes.push(from..most & !(PAGE - 1));
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, end: u64) -> Region {
        let range = LiveAddr(start)..LiveAddr(end);
        Region {
            range,
            executable: false,
            writable: false,
            file: None,
            offset: 0,
        }
    }

    fn module(start: u64, end: u64) -> Module {
        let (start, end) = (LiveAddr(start), LiveAddr(end));
        Module {
            build_id: vec![1],
            start,
            end,
            path: "m".to_owned(),
        }
    }

    #[test]
    fn room_lies_below_the_image_if_it_can() {
        let regions = [region(0x5555_0000_0000, 0x5555_0010_0000)];
        let found = room(
            &regions,
            &module(0x5555_0000_0000, 0x5555_0010_0000),
            0x3000,
            false,
        )
        .unwrap();
        assert!(found.end.0 <= 0x5555_0000_0000);
        assert!(0x5555_0010_0000 - found.start.0 < 1 << 31);
    }

    #[test]
    fn room_for_absolute_addresses_lies_below_two_gibibytes() {
        let regions = [region(0x1_0000, 0x80_0000)];
        let found = room(&regions, &module(0x40_0000, 0x80_0000), 0x3000, true).unwrap();
        assert!(found.end.0 < 1 << 31 && found.start.0 >= 0x80_0000);
    }

    #[test]
    fn pages_move_to_where_they_are_as_far_behind_a_border() {
        let taken = [
            region(0x1_0000, 0x6000_0000_0000),
            region(0x6000_0050_0000, 0x7fff_ffff_f000),
        ];
        let like = LiveAddr(0x5555_001f_f000);
        let at = anywhere(&taken, 0x10_0000, like).unwrap();
        assert_eq!(at.0 % HUGE_PAGE, like.0 % HUGE_PAGE);
        assert!(at.0 >= 0x6000_0000_0000 && at.0 + 0x10_0000 <= 0x6000_0050_0000);
        assert!(anywhere(&taken, 0x20_0000, like).is_err());
    }

    #[test]
    fn no_room_is_a_refusal() {
        let regions = [region(0x1_0000, 0x7fff_ffff_f000)];
        assert!(room(&regions, &module(0x40_0000, 0x80_0000), 0x3000, false).is_err());
    }
}
