//! What differs in the sections of the base: hooks, and nothing else.
//!
//! A hook is a jump to new code, a short jump to another hook, or an address of new code at a place
//! that the loader moves; `CC` may fill up what is left of the instructions that it replaces. Bytes that
//! only look changed by something like that, and are not such a thing themselves, may be anything.

use invivo_image::Rva;
use invivo_image::pe::{BaseRelocationKind, PeImage, PeMachine, PeSection};

/// Bytes that fill up a hook.
const FILL: u8 = 0xcc;
/// No hook has more of them.
const MOST_FILL: u64 = 32;
/// The longest hook without them; one may begin so much before the first byte that differs.
const LONGEST: u64 = 6;

/// The first place that is neither as in the base nor part of a hook.
pub(super) fn differ(image: &PeImage, base: &PeImage) -> Option<String> {
    let both = Both { image, base };
    base.sections
        .iter()
        .find_map(|section| both.section(section))
}

struct Both<'a> {
    image: &'a PeImage,
    base: &'a PeImage,
}

impl Both<'_> {
    fn section(&self, section: &PeSection) -> Option<String> {
        let (start, size) = (section.range.start, section.file_size());
        let bytes = |image: &PeImage| image.bytes(start, size).map(<[u8]>::to_vec);
        let (Some(new), Some(old)) = (bytes(self.image), bytes(self.base)) else {
            return Some(format!("section {} is not in the file", section.name));
        };
        // Up to where it is known that all is right.
        let mut done = start;
        for (offset, (new, old)) in (0_u64..).zip(new.iter().zip(&old)) {
            let at = start.checked_add(offset)?;
            if new == old || at < done {
                continue;
            }
            let Some(end) = self.covered(at, section.is_executable()) else {
                let name = &section.name;
                return Some(format!(
                    "{at} in {name} is not what the base has, and no hook"
                ));
            };
            done = end;
        }
        None
    }

    /// Where the hook ends that the byte at `at` is part of.
    fn covered(&self, at: Rva, is_code: bool) -> Option<Rva> {
        self.address(at).or_else(|| {
            let starts = (0..LONGEST).filter_map(|back| at.0.checked_sub(back).map(Rva));
            let ends = starts.filter_map(|start| self.filled(self.jump(start)?));
            ends.filter(|_| is_code).find(|end| at < *end)
        })
    }

    /// Behind the bytes that fill up what ends at `end`.
    fn filled(&self, end: Rva) -> Option<Rva> {
        let places = (0..MOST_FILL).map_while(|more| end.checked_add(more));
        let fill = places.take_while(|at| self.image.array(*at) == Some([FILL]));
        end.checked_add(fill.count() as u64)
    }

    /// Where the address ends that `at` is part of, if it is one of new code that the loader moves.
    fn address(&self, at: Rva) -> Option<Rva> {
        let all = &self.image.relocations;
        let last = all.partition_point(|one| one.at <= at).checked_sub(1)?;
        let one = all[last];
        let value = match one.kind {
            BaseRelocationKind::Address32 => u64::from(self.image.word(one.at)?),
            BaseRelocationKind::Address64 => u64::from_le_bytes(self.image.array(one.at)?),
            BaseRelocationKind::Other(_) => return None,
        };
        let end = one.at.checked_add(one.kind.width())?;
        let to = value.checked_sub(self.image.image_base).map(Rva)?;
        (at < end && self.is_new(to)).then_some(end)
    }

    /// Where the jump at `at` ends, if it is one of a hook.
    fn jump(&self, at: Rva) -> Option<Rva> {
        if let Some(end) = self.long_jump(at) {
            return Some(end);
        }
        let [0xeb, distance] = self.image.array(at)? else {
            return None;
        };
        let end = at.checked_add(2)?;
        let to = end.0.checked_add_signed(distance.cast_signed().into());
        self.long_jump(Rva(to?)).map(|_| end)
    }

    /// The same of one that leads to new code itself.
    fn long_jump(&self, at: Rva) -> Option<Rva> {
        let near = |end: Rva, distance: [u8; 4]| {
            let distance = i32::from_le_bytes(distance);
            // Addresses of 32 bits wrap around.
            let to = u32::try_from(end.0).ok()?.wrapping_add_signed(distance);
            Some(Rva(to.into()))
        };
        if let Some([0xe9, a, b, c, d]) = self.image.array(at) {
            let end = at.checked_add(5)?;
            return self.is_new(near(end, [a, b, c, d])?).then_some(end);
        }
        let [0xff, 0x25, a, b, c, d] = self.image.array(at)? else {
            return None;
        };
        let end = at.checked_add(6)?;
        let slot = near(end, [a, b, c, d])?;
        let known = self.is_new(slot) || self.address(slot).is_some();
        (known && self.image.machine == PeMachine::Amd64).then_some(end)
    }

    /// True for a place that the base has not.
    fn is_new(&self, at: Rva) -> bool {
        let old = self.base.sections.len();
        let new = self.image.sections.get(old..).unwrap_or_default();
        let after = new.partition_point(|section| section.range.start <= at);
        let section = after.checked_sub(1).and_then(|number| new.get(number));
        section.is_some_and(|section| section.range.contains(&at))
    }
}
