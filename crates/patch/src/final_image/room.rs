//! The begin of a function that is replaced: what may be written over there, and where else.

use std::ops::Range;

use invivo_compare::{Comparison, Hot, Usage};
use invivo_image::pe::PeImage;
use invivo_image::x86_64::decode;
use invivo_image::{EntityId, Image, LinkAddr};

use super::middle::long_instructions;

/// What is around the begin of a function of the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRoom {
    /// Bytes before it that belong to nothing that has a name, and that nothing leads to.
    pub before: u64,
    /// Bytes from its begin on, as whole instructions, of which nothing leads to any but the first.
    pub free: u64,
    /// Instructions of five bytes or more behind its begin that every call comes by before it does
    /// anything that the fix changed, counted in bytes from the begin, in order. The fixed
    /// function goes on at the same distances from its own begin.
    pub long: Vec<Range<u64>>,
}

/// No hook needs more.
const MOST: u64 = 32;

impl HookRoom {
    /// What is around the begin of `hot`; `windows` are both images.
    ///
    /// # Errors
    /// When its code is not known; the text is for a person.
    pub(super) fn of(
        c: &Comparison<'_>,
        hot: &Hot,
        windows: (&PeImage, &PeImage),
    ) -> Result<HookRoom, String> {
        Ok(HookRoom {
            long: long_instructions(c, windows, hot),
            ..HookRoom::around(c.base, &c.base_usage, hot.base.main)?
        })
    }

    /// What is around the begin of a function, whatever a fix may change in it: of what is further on
    /// nothing is known then.
    ///
    /// # Errors
    /// When its code is not known; the text is for a person.
    pub fn around(image: &Image, usage: &Usage, function: EntityId) -> Result<HookRoom, String> {
        let entity = image.entity(function);
        let start = entity.addr;
        let lines = decode(image, entity).ok_or("its code is not all instructions")?;
        // The nearest place from `start` on that anything leads to: other code, data, its own code.
        let mut led = usage.next_boundary(start).map_or(u64::MAX, |at| at.0);
        for reference in lines.iter().flat_map(|line| line.references()) {
            if reference.target > start {
                led = led.min(reference.target.0);
            }
        }
        let ends = lines.iter().map(|line| line.end().0 - start.0);
        let last = led.min(entity.end().0).saturating_sub(start.0).min(MOST);
        let free = ends.take_while(|end| *end <= last).last();
        let room = (1..=MOST).take_while(|back| {
            let at = start.0.checked_sub(*back).map(LinkAddr);
            at.is_some_and(|at| {
                let next = at.0.checked_sub(1).map(LinkAddr);
                let next = next.and_then(|before| usage.next_boundary(before));
                image.entity_at(at).is_none()
                    && image.section_at(at).map(|s| s.range.start)
                        == image.section_at(start).map(|s| s.range.start)
                    && next == Some(start)
            })
        });
        Ok(HookRoom {
            before: room.count() as u64,
            free: free.unwrap_or(0),
            long: Vec::new(),
        })
    }
}
