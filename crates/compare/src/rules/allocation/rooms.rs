//! What one allocator is asked for, held against what another one is.

use super::Sizes;
use super::allocators::SMALLEST;

/// What a call asks for, whoever it asks.
pub(super) struct Room {
    pub(super) sizes: Sizes,
    /// True if nobody says which of the arguments are sizes.
    guessed: bool,
    /// True if each of the arguments that are sizes is constant.
    whole: bool,
}

impl Room {
    /// What an allocator is asked for of which it is known what its arguments are.
    pub(super) fn known(sizes: Sizes, whole: bool) -> Room {
        Room {
            sizes,
            guessed: false,
            whole,
        }
    }

    /// The same of one that is known by its name alone. What it hands on to another one tells more, if no
    /// other argument is large: an arena may hand on only how much it fetches when nothing is left.
    pub(super) fn guessed(sizes: Sizes, handed_on: Option<(Sizes, Vec<usize>)>) -> Option<Room> {
        let large = |(_, size): &&(usize, u64)| *size >= SMALLEST;
        if let Some((known, indexes)) = handed_on
            && sizes
                .iter()
                .filter(large)
                .all(|(at, _)| indexes.contains(at))
        {
            let whole = known.len() == indexes.len();
            return (!known.is_empty()).then(|| Room::known(known, whole));
        }
        let is_large = sizes.iter().any(|size| large(&size));
        is_large.then_some(Room {
            sizes,
            guessed: true,
            whole: false,
        })
    }

    /// True if both ask for as much. Where nobody says what is a size, arguments at the same place must be
    /// the same, or, where there are none, one large number must be in both.
    pub(super) fn is_as_much(&self, other: &Room) -> bool {
        if !self.guessed && !other.guessed {
            return self.whole == other.whole && self.bytes() == other.bytes();
        }
        let mut common = self.sizes.iter().filter_map(|(at, size)| {
            let mut others = other.sizes.iter();
            others
                .find(|(place, _)| place == at)
                .map(|(_, other)| (size, other))
        });
        let mut large = self.sizes.iter().filter(|(_, size)| *size >= SMALLEST);
        self.bytes() == other.bytes()
            || match common.next() {
                Some((one, other)) => one == other && common.all(|(one, other)| one == other),
                None => large.any(|(_, size)| other.sizes.iter().any(|(_, same)| size == same)),
            }
    }

    /// How many bytes that is; a flag that is not set is no number of things.
    fn bytes(&self) -> u64 {
        let sizes = self.sizes.iter().map(|(_, size)| *size);
        let sizes = sizes.filter(|size| !self.guessed || *size > 0);
        sizes.fold(1, u64::wrapping_mul)
    }
}
