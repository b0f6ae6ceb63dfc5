//! How long a constant without a symbol is, where its use does not say it alone.

use invivo_image::{Image, LinkAddr, is_rust};

use crate::Usage;
use crate::meaning::{Meaning, Referred};

impl Meaning<'_, '_> {
    /// True if what follows two constants of `size` bytes, up to the next references, is
    /// the same but for padding.
    pub(crate) fn same_rest(&self, a: LinkAddr, b: LinkAddr, size: u64) -> bool {
        let c = self.comparison();
        let sizes = self.rooms(a, b);
        let sizes = sizes.map(|(one, other)| (one.max(size), other.max(size)));
        sizes.is_some_and(|(one, other)| {
            let least = one.min(other);
            let (start, there) = (LinkAddr(a.0 + size), LinkAddr(b.0 + size));
            // What ends with its section is followed by nothing.
            (least == size || self.same_data(start, there, least - size))
                && is_padding(c.base, a, least, one)
                && is_padding(c.fixed, b, least, other)
        })
    }

    /// True if what anybody else refers to begins on one side where `size` bytes end that an
    /// instruction reads, and no more: on the other side another constant lies there, which no code
    /// of either image gets at from here.
    pub(crate) fn ends_at(&self, a: LinkAddr, b: LinkAddr, size: u64) -> bool {
        let rooms = self.rooms(a, b);
        rooms.is_some_and(|(one, other)| one == size || other == size)
    }

    /// How far it is to the next places that anything refers to.
    pub(crate) fn rooms(&self, a: LinkAddr, b: LinkAddr) -> Option<(u64, u64)> {
        let c = self.comparison();
        let room = |image: &Image, usage: &Usage, at: LinkAddr| {
            let limit = image.section_at(at)?.range.end;
            let next = usage.next_boundary(at);
            let end = next.map_or(limit, |next| next.min(limit));
            end.0.checked_sub(at.0)
        };
        room(c.base, &c.base_usage, a).zip(room(c.fixed, &c.fixed_usage, b))
    }

    /// True if both constants are the same for a length that stands beside their addresses.
    ///
    /// Rust's texts have no NUL, and what follows one may be a text that nobody refers to
    /// any more. A number alone proves nothing: it may count elements of two bytes, or be
    /// about something else. But if the next thing that anything refers to begins just where
    /// it says, on one side, then the constant ends there.
    pub(crate) fn same_with_length(
        &self,
        a: LinkAddr,
        b: LinkAddr,
        base: Referred<'_>,
        fixed: Referred<'_>,
    ) -> bool {
        let c = self.comparison();
        let Some((one, other)) = self.rooms(a, b) else {
            return false;
        };
        let of_rust = |image: &Image, reader: Referred<'_>| match reader.line {
            Some(line) => {
                let function = image.entity_at(line.at());
                function.is_some_and(|id| is_rust(image.entity(id).name()))
            }
            None => !reader.numbers.is_empty(),
        };
        if !of_rust(c.base, base) || !of_rust(c.fixed, fixed) {
            return false;
        }
        // `fmt::Arguments` keeps twice the length plus one.
        let numbers = base.numbers.iter().filter(|n| fixed.numbers.contains(n));
        let lengths = numbers.flat_map(|n| [Some(*n), (n % 2 == 1).then_some(n / 2)]);
        lengths.flatten().any(|length| {
            // Not where zeros follow: they may be the rest of the constant.
            let ends = length == one || length == other;
            ends && (1..=one.min(other)).contains(&length) && self.same_data(a, b, length)
        })
    }
}

pub(crate) fn is_padding(image: &Image, at: LinkAddr, from: u64, to: u64) -> bool {
    const LARGEST_ALIGNMENT: u64 = 64;
    if to == from {
        return true;
    }
    to - from < LARGEST_ALIGNMENT
        && image
            .bytes(LinkAddr(at.0 + from), to - from)
            .is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}
