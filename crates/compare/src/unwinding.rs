//! Comparison of how unwinding passes two functions: call frame information and the
//! language's own table.

use std::ops::Range;

use invivo_image::pe::HandlingWord;
use invivo_image::{Cie, Fde, Image, LinkAddr, Lsda};

use crate::Parts;
use crate::code::Body;
use crate::meaning::{Meaning, Referred};

impl Meaning<'_, '_> {
    /// True if unwinding passes both functions in the same way.
    pub(crate) fn same_unwinding(
        &self,
        one: &Body<'_>,
        base: &Parts,
        other: &Body<'_>,
        fixed: &Parts,
    ) -> bool {
        let c = self.comparison();
        base.ids().zip(fixed.ids()).all(|(a, b)| {
            let (a, b) = (c.base.entity(a), c.fixed.entity(b));
            self.same_frames(one, &(a.addr..a.end()), other, &(b.addr..b.end()))
        })
    }

    /// True if the frame descriptions that begin in two pieces of code say the same.
    pub(crate) fn same_frames(
        &self,
        one: &Body<'_>,
        base: &Range<LinkAddr>,
        other: &Body<'_>,
        fixed: &Range<LinkAddr>,
    ) -> bool {
        // Code that came out shorter, with a short jump for a long one, has the same steps
        // at other distances.
        self.same_frames_by(base, fixed, &|from, to| {
            let (before, after) = (
                from.0.wrapping_sub(base.start.0),
                to.0.wrapping_sub(fixed.start.0),
            );
            let places = one.index(from).zip(other.index(to));
            let inside = base.start <= from && from <= base.end;
            places.map_or(inside && before == after, |(before, after)| before == after)
        })
    }

    /// The same, where `moved` says whether two places in the code are the same.
    pub(crate) fn same_frames_by(
        &self,
        base: &Range<LinkAddr>,
        fixed: &Range<LinkAddr>,
        moved: &dyn Fn(LinkAddr, LinkAddr) -> bool,
    ) -> bool {
        let c = self.comparison();
        let (fdes, others) = (c.base.unwind.fdes_in(base), c.fixed.unwind.fdes_in(fixed));
        let exactly = base.end.0 - base.start.0 == fixed.end.0 - fixed.start.0;
        fdes.len() == others.len()
            && fdes.iter().zip(others).all(|(a, b)| {
                moved(a.range.start, b.range.start)
                    && (moved(a.range.end, b.range.end)
                        || a.range.end == base.end && b.range.end == fixed.end)
                    && self.same_cie(&c.base.unwind.cies[a.cie], &c.fixed.unwind.cies[b.cie])
                    && self.same_steps(a, b, exactly, moved)
                    && self.same_lsda(a.lsda, b.lsda, moved)
            })
            && self.same_handling(base, fixed, moved)
    }

    /// True if exceptions are handled in the same way in two pieces of code of Windows images.
    fn same_handling(
        &self,
        base: &Range<LinkAddr>,
        fixed: &Range<LinkAddr>,
        moved: &dyn Fn(LinkAddr, LinkAddr) -> bool,
    ) -> bool {
        let c = self.comparison();
        let (one, other) = (c.base.handling_in(base), c.fixed.handling_in(fixed));
        // LLVM writes the address behind the first byte of an instruction.
        let near = |a: LinkAddr, b: LinkAddr| {
            let before = |at: LinkAddr| LinkAddr(at.0.saturating_sub(1));
            moved(a, b) || moved(before(a), before(b))
        };
        let inside = |a: LinkAddr, b: LinkAddr| {
            (base.start..=base.end).contains(&a) || (fixed.start..=fixed.end).contains(&b)
        };
        let place = |a: LinkAddr, b: LinkAddr| match inside(a, b) {
            true => near(a, b) || (a, b) == (base.end, fixed.end),
            false => {
                let pointer = Referred::pointer;
                self.same(pointer(a), pointer(b)).is_ok()
            }
        };
        let word = |(a, b): (&HandlingWord, &HandlingWord)| match (a, b) {
            (HandlingWord::Place(a), HandlingWord::Place(b)) => place(*a, *b),
            (a, b) => a == b,
        };
        one.len() == other.len()
            && one.iter().zip(other).all(|(a, b)| {
                let (code, there) = (a.code(c.base), b.code(c.fixed));
                let words = (a.words(c.base), b.words(c.fixed));
                place(code.start, there.start)
                    && place(code.end, there.end)
                    && place(a.routine(c.base), b.routine(c.fixed))
                    && match words {
                        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(&b).all(word),
                        // R-PERSONALITY tells that nobody knows them.
                        (one, other) => one.is_none() && other.is_none(),
                    }
            })
    }

    fn same_cie(&self, a: &Cie, b: &Cie) -> bool {
        let c = self.comparison();
        let personality = match (a.personality, b.personality) {
            (None, None) => true,
            (Some((a, one)), Some((b, other))) => {
                // The word that holds the routine's address (`DW.ref.__gxx_personality_v0`) is
                // in every file that needs it, and linkers keep any one of them.
                let slots = c.base.slots.get(&a).zip(c.fixed.slots.get(&b));
                one == other
                    && slots.map_or_else(
                        || {
                            let place = Referred::pointer;
                            self.same(place(a), place(b)).is_ok()
                        },
                        |(one, other)| self.same_slot(one, other),
                    )
            }
            _ => false,
        };
        personality
            && (a.code_align, a.data_align, a.return_register)
                == (b.code_align, b.data_align, b.return_register)
            && (a.has_lsda, a.signal) == (b.has_lsda, b.signal)
    }

    fn same_steps(
        &self,
        a: &Fde,
        b: &Fde,
        exactly: bool,
        moved: &dyn Fn(LinkAddr, LinkAddr) -> bool,
    ) -> bool {
        let c = self.comparison();
        if exactly && instructions(c.base, a).is_some_and(|x| instructions(c.fixed, b) == Some(x)) {
            return true;
        }
        let steps = |image: &Image, fde: &Fde| image.unwind.steps(image, fde);
        match (steps(c.base, a), steps(c.fixed, b)) {
            (Some(one), Some(other)) => {
                one.len() == other.len()
                    && one
                        .iter()
                        .zip(&other)
                        .all(|(x, y)| moved(x.0, y.0) && x.1 == y.1)
            }
            _ => false,
        }
    }

    fn same_lsda(
        &self,
        base: Option<LinkAddr>,
        fixed: Option<LinkAddr>,
        moved: &dyn Fn(LinkAddr, LinkAddr) -> bool,
    ) -> bool {
        let c = self.comparison();
        let (Some(base), Some(fixed)) = (base, fixed) else {
            return base.is_none() && fixed.is_none();
        };
        let (Ok(one), Ok(other)) = (Lsda::parse(c.base, base), Lsda::parse(c.fixed, fixed)) else {
            return false;
        };
        let mut pads = one.elsewhere.iter().zip(&other.elsewhere);
        one.tables == other.tables
            && one.elsewhere.len() == other.elsewhere.len()
            && pads.all(|(a, b)| moved(*a, *b))
            && one.types.len() == other.types.len()
            && one.types.iter().zip(&other.types).all(|(a, b)| {
                a.0.0 - base.0 == b.0.0 - fixed.0
                    && a.1 == b.1
                    && self
                        .same(Referred::pointer(a.2), Referred::pointer(b.2))
                        .is_ok()
            })
    }
}

/// The instructions of a frame description as they stand, those of its common entry first.
fn instructions<'a>(image: &'a Image, fde: &Fde) -> Option<(&'a [u8], &'a [u8])> {
    let bytes = |range| image.unwind.instructions(image, range);
    let common = bytes(&image.unwind.cies[fde.cie].instructions)?;
    Some((common, bytes(&fde.instructions)?))
}
