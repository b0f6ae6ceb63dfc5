//! Constants without a name that hold the same bytes, however they are read.
//!
//! Where the texts of Rust are, no NUL may come for a hundred thousand bytes, and each of them
//! would be compared up to there. So it is kept how far two places were found the same.

use invivo_image::{Image, Link, LinkAddr};

use crate::Usage;
use crate::meaning::Meaning;

/// The widest operand of those that code reads constants by, and more than most of these have.
pub(crate) const WIDEST: usize = 64;
/// The longest constant that is looked at, in bytes.
const LONGEST: u64 = 1 << 20;
/// A shorter way is not worth to be kept.
const SHORT: usize = 256;
/// How many are kept.
const KEPT: usize = 8;

/// A way through both images on which there is no NUL but at its end.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Where it begins in the base.
    base: LinkAddr,
    /// Where it begins in the fixed image.
    fixed: LinkAddr,
    /// In bytes: with the NUL at its end, or up to the first difference.
    size: usize,
    /// The bytes of both are the same, and none of them is part of a pointer.
    same: bool,
}

/// Those that were found last.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    kept: Vec<Run>,
    next: usize,
}

impl Runs {
    /// How far it is from two places to the end of a run that both are on, and whether all of
    /// that is the same.
    fn find(&self, base: LinkAddr, fixed: LinkAddr) -> Option<(usize, bool)> {
        self.kept.iter().find_map(|run| {
            let way = usize::try_from(base.checked_sub(run.base)?).ok()?;
            let as_far = Some(base.0 - run.base.0) == fixed.checked_sub(run.fixed);
            // At the NUL itself another text begins.
            (as_far && way + 1 < run.size).then(|| (run.size - way, run.same))
        })
    }

    fn keep(&mut self, run: Run) {
        if run.size < SHORT {
            return;
        }
        if self.kept.len() < KEPT {
            self.kept.push(run);
        } else {
            self.kept[self.next] = run;
            self.next = (self.next + 1) % KEPT;
        }
    }
}

impl Meaning<'_, '_> {
    /// True if two constants without a name hold the same bytes however they are read, and no
    /// pointer; `None` where they may be the same all the same.
    pub(crate) fn same_bytes(&self, a: LinkAddr, b: LinkAddr) -> Option<bool> {
        let c = self.comparison();
        let read = |image: &'_ Image, usage: &Usage, at: LinkAddr| {
            let room = image.section_at(at)?.range.end.0 - at.0;
            let next = usage.next_boundary(at).map_or(room, |next| next.0 - at.0);
            Some((next.min(room), room))
        };
        let (next, room) = read(c.base, &c.base_usage, a)?;
        let (its_next, its_room) = read(c.fixed, &c.fixed_usage, b)?;
        // Where one image alone refers to a place between, the longer way includes the other.
        let next = next.max(its_next);
        if next > LONGEST {
            return None;
        }
        let next = usize::try_from(next).ok()?;
        let known = self.runs().borrow().find(a, b);
        match known {
            Some((_, false)) => return None,
            Some((way, true)) if next.max(WIDEST) <= way => return Some(true),
            _ => {}
        }
        let (one, other) = (
            c.base.bytes(a, room.min(LONGEST))?,
            c.fixed.bytes(b, its_room.min(LONGEST))?,
        );
        // What may be read of it: up to the next reference, an operand, or a text, behind an
        // empty one the following text.
        let text = |from: usize| Some(from + memchr::memchr(0, one.get(from..)?)? + 1);
        let end = match known {
            Some((way, _)) => way,
            None => match text(0)? {
                1 => text(1)?,
                end => end,
            },
        };
        let size = end.max(WIDEST).max(next);
        let (one, other) = (one.get(..size)?, other.get(..size)?);
        let equal = first_difference(one, other);
        let same = equal == size
            && holds_no_pointer(c.base, a, one)
            && holds_no_pointer(c.fixed, b, other);
        if known.is_none() && one.first() != Some(&0) {
            self.runs().borrow_mut().keep(Run {
                base: a,
                fixed: b,
                size: if same { end } else { equal.min(end) },
                same,
            });
        }
        same.then_some(true)
    }

    /// True if two constants without a name that begin with a pointer are the same up to the
    /// next references. Whoever only takes their addresses reads no more: they are no texts.
    pub(crate) fn same_filled(&self, a: LinkAddr, b: LinkAddr) -> bool {
        const LONGEST: u64 = 4096;
        let c = self.comparison();
        let filled = c.base.slots.contains_key(&a) && c.fixed.slots.contains_key(&b);
        let rooms = filled.then(|| self.rooms(a, b)).flatten();
        rooms.is_some_and(|(room, its_room)| {
            room == its_room && room <= LONGEST && self.same_data(a, b, room)
        })
    }
}

fn holds_no_pointer(image: &Image, at: LinkAddr, bytes: &[u8]) -> bool {
    let start = LinkAddr(at.0.saturating_sub(image.pointer_size() - 1));
    let end = LinkAddr(at.0.saturating_add(bytes.len() as u64));
    if image.slots.range(start..end).next().is_some() {
        return false;
    }
    let lead = (at.0.wrapping_neg() & 7) as usize;
    let mut words = bytes.get(lead..).unwrap_or_default().chunks_exact(8);
    image.link != Link::Fixed
        || !words.any(|word| {
            let word = u64::from_le_bytes(word.try_into().expect("chunks of eight"));
            image.section_at(LinkAddr(word)).is_some()
        })
}

/// How many bytes are the same before the first that is not.
fn first_difference(one: &[u8], other: &[u8]) -> usize {
    const TOGETHER: usize = 256;
    let mut pieces = one.chunks(TOGETHER).zip(other.chunks(TOGETHER));
    let whole = pieces.position(|(a, b)| a != b);
    let start = whole.map_or(one.len(), |whole| whole * TOGETHER);
    let rest = one[start..].iter().zip(&other[start..]);
    start + rest.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::{LinkAddr, Run, Runs, first_difference};

    #[test]
    fn the_first_difference_is_found_wherever_it_is() {
        let one: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(first_difference(&one, &one), one.len());
        assert_eq!(first_difference(&[], &[]), 0);
        for at in [0, 1, 255, 256, 257, 511, 512, 999] {
            let mut other = one.clone();
            other[at] ^= 1;
            assert_eq!(first_difference(&one, &other), at);
        }
    }

    #[test]
    fn a_run_is_known_to_those_who_are_as_far_in_both_images() {
        let run = |base, fixed, same| Run {
            base: LinkAddr(base),
            fixed: LinkAddr(fixed),
            size: 1000,
            same,
        };
        let mut runs = Runs::default();
        let find = |runs: &Runs, base, fixed| runs.find(LinkAddr(base), LinkAddr(fixed));
        runs.keep(run(5000, 9000, true));
        assert_eq!(find(&runs, 5100, 9100), Some((900, true)));
        assert_eq!(find(&runs, 5998, 9998), Some((2, true)));
        for (base, fixed) in [(5999, 9999), (6000, 10_000), (5100, 9101), (4999, 8999)] {
            assert_eq!(find(&runs, base, fixed), None, "{base}");
        }
        // The latest ones are kept.
        (0..8).for_each(|n| runs.keep(run(100_000 * (n + 1), 0, false)));
        assert_eq!(find(&runs, 5100, 9100), None);
        assert_eq!(find(&runs, 100_100, 100), Some((900, false)));
        assert_eq!(find(&runs, 800_100, 100), Some((900, false)));
    }
}
