//! The compressed tables of `__CxxFrameHandler4`, the routine for C++ of newer Visual C++.
//!
//! The layouts are those of `ehdata4_export.h` of its C++ runtime, held against the libraries of
//! that runtime and others that Visual C++ made. What none of these has is not read: functions in
//! several pieces, flags that are left by the reordering of code, continuations by their address.

/// More words than these are taken for broken tables.
const MOST_WORDS: usize = 1 << 16;

/// What stands in the tables, places as distances from the image's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Number(u32),
    Place(u32),
}

/// The tables of one function, decompressed.
#[derive(Debug, Default)]
pub(super) struct Frame4 {
    /// All that they say, in order.
    pub(super) words: Vec<Word>,
    /// Clean-ups and catches.
    pub(super) code: Vec<u32>,
    /// Descriptions of types that are caught.
    pub(super) types: Vec<u32>,
}

/// Bits of a function's first byte.
mod function {
    /// It is a catch of another function.
    pub(super) const CATCH: u8 = 1;
    /// It has clean-ups.
    pub(super) const UNWIND: u8 = 8;
    /// It has `try` blocks.
    pub(super) const TRIES: u8 = 0x10;
    /// Those that are known: also that only exceptions of C++ are handled, and that none leaves it.
    pub(super) const KNOWN: u8 = CATCH | UNWIND | TRIES | 0x20 | 0x40;
}

/// Bits of a catch's first byte.
mod catch {
    pub(super) const ADJECTIVES: u8 = 1;
    pub(super) const TYPE: u8 = 2;
    pub(super) const OBJECT: u8 = 4;
    /// Where two bits stand that tell how many places it may go on at.
    pub(super) const PLACES_AT: u8 = 4;
    pub(super) const KNOWN: u8 = ADJECTIVES | TYPE | OBJECT | 0x30;
}

/// Reads the tables at `info` of the function that begins at `start`; `bytes` gives so many bytes
/// of the image. `None` where they are broken or of a form that is not known.
pub(super) fn read<'f>(
    bytes: impl Fn(u32, u32) -> Option<&'f [u8]>,
    start: u32,
    info: u32,
) -> Option<Frame4> {
    let mut tables = Tables {
        bytes,
        at: info,
        found: Frame4::default(),
    };
    let header = tables.byte()?;
    if header & !function::KNOWN != 0 {
        return None;
    }
    tables.number(header.into())?;
    let mut list = |flag: u8| match header & flag != 0 {
        true => tables.raw(),
        false => Some(0),
    };
    let (unwind, tries) = (list(function::UNWIND)?, list(function::TRIES)?);
    let places = tables.raw()?;
    if header & function::CATCH != 0 {
        tables.copied()?;
    }
    let states = tables.unwind(unwind)?;
    tables.tries(tries, start, states)?;
    tables.places(places, start, states)?;
    Some(tables.found)
}

struct Tables<B> {
    bytes: B,
    /// Where the next byte is.
    at: u32,
    found: Frame4,
}

impl<'f, B: Fn(u32, u32) -> Option<&'f [u8]>> Tables<B> {
    fn take(&mut self, size: u32) -> Option<&'f [u8]> {
        let bytes = (self.bytes)(self.at, size)?;
        self.at = self.at.checked_add(size)?;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// Four bytes as they are.
    fn raw(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().copied().map(u32::from_le_bytes)
    }

    /// A compressed number: how many of the lowest bits are set tells how many bytes follow.
    fn compressed(&mut self) -> Option<u32> {
        let first = *(self.bytes)(self.at, 1)?.first()?;
        let more = (first & 0xf).trailing_ones();
        if more == 4 {
            self.byte()?;
            return self.raw();
        }
        let bytes = self.take(more + 1)?;
        let mut word = [0; 4];
        word.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u32::from_le_bytes(word) >> (more + 1))
    }

    fn add(&mut self, word: Word) -> Option<()> {
        self.found.words.push(word);
        (self.found.words.len() <= MOST_WORDS).then_some(())
    }

    fn number(&mut self, number: u32) -> Option<()> {
        self.add(Word::Number(number))
    }

    /// A compressed number that is told as it is.
    fn copied(&mut self) -> Option<u32> {
        let number = self.compressed()?;
        self.number(number)?;
        Some(number)
    }

    fn code(&mut self) -> Option<()> {
        let at = self.raw()?;
        self.found.code.push(at);
        self.add(Word::Place(at))
    }

    /// How many entries the list at `at` has; none if there is no list.
    fn list(&mut self, at: u32) -> Option<u32> {
        self.at = at;
        match at {
            0 => self.number(0).map(|()| 0),
            _ => self.copied(),
        }
    }

    /// Clean-ups: each tells which is done after it by the distance of its own entry from that
    /// one's, whose size depends on what is in it. Gives how many there are.
    fn unwind(&mut self, list: u32) -> Option<u32> {
        let count = self.list(list)?;
        let mut entries: Vec<u32> = Vec::new();
        for _ in 0..count {
            let own = self.at;
            let packed = self.compressed()?;
            let (kind, distance) = (packed & 3, packed >> 2);
            let next = own.checked_sub(distance)?;
            // What lies before the first one is none.
            let next = match entries.binary_search(&next) {
                Ok(index) => u32::try_from(index).ok()?.checked_add(1)?,
                Err(0) if distance != 0 => 0,
                Err(_) => return None,
            };
            self.number(next)?;
            self.number(kind)?;
            if kind != 0 {
                self.code()?;
            }
            // A destructor's object, or the pointer to it.
            if matches!(kind, 1 | 2) {
                self.copied()?;
            }
            entries.push(own);
        }
        Some(count)
    }

    /// `try` blocks with their catches.
    fn tries(&mut self, list: u32, start: u32, states: u32) -> Option<()> {
        for _ in 0..self.list(list)? {
            let [low, high, highest] = [self.copied()?, self.copied()?, self.copied()?];
            let catches = self.raw()?;
            let next = self.at;
            if low > high || high > highest || highest > states {
                return None;
            }
            for _ in 0..self.list(catches)? {
                self.catch(start)?;
            }
            self.at = next;
        }
        Some(())
    }

    fn catch(&mut self, start: u32) -> Option<()> {
        let header = self.byte()?;
        let places = header >> catch::PLACES_AT;
        if header & !catch::KNOWN != 0 || places > 2 {
            return None;
        }
        self.number(header.into())?;
        if header & catch::ADJECTIVES != 0 {
            self.copied()?;
        }
        if header & catch::TYPE != 0 {
            let at = self.raw()?;
            self.found.types.push(at);
            self.add(Word::Place(at))?;
        }
        if header & catch::OBJECT != 0 {
            self.copied()?;
        }
        self.code()?;
        for _ in 0..places {
            let at = start.checked_add(self.compressed()?)?;
            self.add(Word::Place(at))?;
        }
        Some(())
    }

    /// In which state the function is from which place on.
    fn places(&mut self, list: u32, start: u32, states: u32) -> Option<()> {
        let mut at = start;
        for _ in 0..self.list(list)? {
            at = at.checked_add(self.compressed()?)?;
            self.add(Word::Place(at))?;
            // One more than the number of the state, so that none is 0.
            if self.copied()? > states {
                return None;
            }
        }
        Some(())
    }
}
