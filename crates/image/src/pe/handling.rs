//! How exceptions are handled in functions of x86-64 and ARM64, so that two builds can be compared: the
//! routine, and all that its tables say. The layouts are those of [`super::handlers`].

use std::ops::Range;

use super::{Handler, PeImage, PeMachine, frame4};
use crate::LinkAddr;
use crate::model::{Image, Slot};

/// Tables with more words than this are taken for broken.
const MOST_WORDS: usize = 1 << 16;

/// One entry of `.pdata` with a routine that is asked about exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handling {
    start: u32,
    end: u32,
    routine: u32,
    data: u32,
    /// True if another entry has the same tables.
    is_shared: bool,
}

/// What stands in a routine's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlingWord {
    /// A number.
    Number(u32),
    /// A place in code or data.
    Place(LinkAddr),
}

/// All of them, in order of address.
pub(super) fn read(pe: &PeImage) -> Result<Vec<Handling>, super::PeError> {
    let mut found = Vec::new();
    if pe.machine == PeMachine::I386 {
        return Ok(found);
    }
    for entry in &pe.functions {
        let Some(Handler { routine, data }) = pe.handler(entry)? else {
            continue;
        };
        let places = [entry.code.start, entry.code.end, routine, data];
        // All of them lie in an image whose size has 32 bits.
        let [start, end, routine, data] = places.map(|at| u32::try_from(at.0).unwrap_or(u32::MAX));
        found.push(Handling {
            start,
            end,
            routine,
            data,
            is_shared: false,
        });
    }
    found.sort_unstable_by_key(|one| one.data);
    for group in found.chunk_by_mut(|one, other| one.data == other.data) {
        let is_shared = group.len() > 1;
        group.iter_mut().for_each(|one| one.is_shared = is_shared);
    }
    found.sort_unstable_by_key(|one| (one.start, one.end));
    Ok(found)
}

impl Image {
    /// How exceptions are handled in what begins in `code`.
    #[must_use]
    pub fn handling_in(&self, code: &Range<LinkAddr>) -> &[Handling] {
        let at = |place: LinkAddr| place.0.saturating_sub(self.base.0);
        let first = self
            .handling
            .partition_point(|one| u64::from(one.start) < at(code.start));
        let rest = &self.handling[first..];
        &rest[..rest.partition_point(|one| u64::from(one.start) < at(code.end))]
    }

    fn handling_word(&self, at: u32, index: u32) -> Option<u32> {
        let at = at.checked_add(index.checked_mul(4)?)?;
        let bytes = self.bytes(self.base.checked_add(at.into())?, 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl Handling {
    /// The code that it is about.
    #[must_use]
    pub fn code(&self, image: &Image) -> Range<LinkAddr> {
        at(image, self.start)..at(image, self.end)
    }

    /// The routine.
    #[must_use]
    pub fn routine(&self, image: &Image) -> LinkAddr {
        at(image, self.routine)
    }

    /// What the routine is called; `None` if it has no name.
    #[must_use]
    pub fn routine_name<'i>(&self, image: &'i Image) -> Option<&'i str> {
        let routine = self.routine(image);
        if let Some(id) = image.entity_at(routine) {
            let entity = image.entity(id);
            return (entity.addr == routine).then(|| entity.name());
        }
        // A jump through an import slot.
        match image.slots.get(&image.slot_of_thunk(routine)?)? {
            Slot::Import(name, 0) => name.rsplit('!').next(),
            _ => None,
        }
    }

    /// All that the routine's tables say; `None` if they are not understood.
    #[must_use]
    pub fn words(&self, image: &Image) -> Option<Vec<HandlingWord>> {
        let mut tables = Tables {
            image,
            words: Vec::new(),
        };
        let behind = match self.routine_name(image)? {
            "__C_specific_handler" => tables.scopes(self.data).map(|_| None),
            "__CxxFrameHandler3" => tables.frame(self.data).map(|_| None),
            "__CxxFrameHandler4" => tables.compressed_frame(self).map(|_| None),
            "__GSHandlerCheck" => Some(Some(self.data)),
            "__GSHandlerCheck_SEH" => tables.scopes(self.data).map(Some),
            "__GSHandlerCheck_EH" => {
                tables.frame(self.data)?;
                self.data.checked_add(4).map(Some)
            }
            "__GSHandlerCheck_EH4" => {
                tables.compressed_frame(self)?;
                self.data.checked_add(4).map(Some)
            }
            _ => None,
        }?;
        if let Some(cookie) = behind {
            tables.cookie(cookie)?;
        }
        Some(tables.words)
    }
}

fn at(image: &Image, rva: u32) -> LinkAddr {
    LinkAddr(image.base.0.saturating_add(rva.into()))
}

/// What is read of the tables.
struct Tables<'i> {
    image: &'i Image,
    words: Vec<HandlingWord>,
}

impl Tables<'_> {
    /// Reads `count` rows; `columns` tells of each word whether it is a place.
    fn rows(&mut self, table: u32, count: u32, columns: &[bool]) -> Option<()> {
        let wide = u32::try_from(columns.len()).ok()?;
        for row in 0..count {
            for (column, is_place) in (0..wide).zip(columns) {
                let index = row.checked_mul(wide)?.checked_add(column)?;
                let word = self.image.handling_word(table, index)?;
                self.add(word, *is_place)?;
            }
        }
        Some(())
    }

    fn add(&mut self, word: u32, is_place: bool) -> Option<()> {
        /// In the place of a filter: every exception is taken. And 0: none is there.
        const ALWAYS: u32 = 1;
        self.words.push(match is_place && word > ALWAYS {
            true => HandlingWord::Place(at(self.image, word)),
            false => HandlingWord::Number(word),
        });
        (self.words.len() <= MOST_WORDS).then_some(())
    }

    fn word(&self, table: u32, index: u32) -> Option<u32> {
        self.image.handling_word(table, index)
    }

    /// `__try` of C: from where to where, filter, handler. Gives where the table ends.
    fn scopes(&mut self, table: u32) -> Option<u32> {
        let count = self.word(table, 0)?;
        self.add(count, false)?;
        self.rows(table.checked_add(4)?, count, &[true; 4])?;
        table.checked_add(count.checked_mul(16)?)?.checked_add(4)
    }

    /// The tables of a C++ function, whose address stands at `at`.
    fn frame(&mut self, at: u32) -> Option<()> {
        let info = self.word(at, 0)?;
        let (form, states, tries, places) = (
            self.word(info, 0)? & 0x1fff_ffff,
            self.word(info, 1)?,
            self.word(info, 3)?,
            self.word(info, 5)?,
        );
        if !(0x1993_0520..0x1993_0523).contains(&form) {
            return None;
        }
        [form, states, tries, places]
            .into_iter()
            .try_for_each(|word| self.add(word, false))?;
        // Where the number of the state is kept in the frame.
        self.add(self.word(info, 7)?, false)?;
        // A list of types that the function says it throws: no compiler writes one any more.
        if form > 0x1993_0520 && self.word(info, 8)? != 0 {
            return None;
        }
        if form > 0x1993_0521 {
            self.add(self.word(info, 9)?, false)?;
        }
        self.rows(self.word(info, 2)?, states, &[false, true])?;
        let blocks = self.word(info, 4)?;
        for block in 0..tries {
            let table = blocks.checked_add(block.checked_mul(20)?)?;
            self.rows(table, 1, &[false; 4])?;
            let (count, catches) = (self.word(table, 3)?, self.word(table, 4)?);
            self.rows(catches, count, &[false, true, false, true, false])?;
        }
        self.rows(self.word(info, 6)?, places, &[true, false])
    }

    /// The same, compressed. Its places are told from where the function begins, which is not known
    /// of one whose entries share their tables.
    fn compressed_frame(&mut self, of: &Handling) -> Option<()> {
        if of.is_shared {
            return None;
        }
        let image = self.image;
        let bytes = |place: u32, size: u32| image.bytes(at(image, place), size.into());
        let found = frame4::read(bytes, of.start, self.word(of.data, 0)?)?;
        self.words = found
            .words
            .into_iter()
            .map(|word| match word {
                frame4::Word::Place(place) if place != 0 => HandlingWord::Place(at(image, place)),
                frame4::Word::Place(number) | frame4::Word::Number(number) => {
                    HandlingWord::Number(number)
                }
            })
            .collect();
        Some(())
    }

    /// Where the value is kept that tells whether a buffer was overrun.
    fn cookie(&mut self, table: u32) -> Option<()> {
        const IS_ALIGNED: u32 = 4;
        let first = self.word(table, 0)?;
        let more = if first & IS_ALIGNED != 0 { 3 } else { 1 };
        self.rows(table, more, &[false])
    }
}
