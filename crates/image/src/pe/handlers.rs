//! What handles exceptions in functions of x86-64 and ARM64: the routine that unwind data name, and what
//! its tables lead to. The layouts are those of Microsoft's "x64 exception handling", "ARM64 exception
//! handling" and of the headers of its C++ runtime (`ehdata.h`).

use std::ops::Range;

use super::error::outside;
use super::{PeError, PeImage, PeMachine, UnwindFunction, functions};
use crate::Rva;

/// Data may be chained from function to function; no compiler's are longer.
const LONGEST_CHAIN: usize = 32;

/// The routine that is asked about exceptions in a function, and its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handler {
    /// The routine, such as `__C_specific_handler`.
    pub routine: Rva,
    /// What only the routine understands.
    pub data: Rva,
}

/// What the tables of a routine lead to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// Code: filters, clean-ups and catches.
    pub code: Vec<Rva>,
    /// Descriptions of types that are caught.
    pub types: Vec<Rva>,
}

impl PeImage {
    /// The entries of `.pdata` that begin in `code`, or hold its first byte.
    pub fn unwind_entries(&self, code: &Range<Rva>) -> impl Iterator<Item = &UnwindFunction> {
        let code = code.clone();
        // Windows searches the table by halves, so one out of order is not found there either.
        let first = self
            .functions
            .partition_point(|one| one.code.end <= code.start);
        let entries = self.functions.get(first..).unwrap_or_default().iter();
        entries.take_while(move |one| one.code.start < code.end)
    }

    /// The routine that is asked about exceptions in what an entry of `.pdata` is about; `None` where
    /// they pass through.
    ///
    /// # Errors
    /// When the unwind data are broken, or of a version that is not known.
    pub fn handler(&self, of: &UnwindFunction) -> Result<Option<Handler>, PeError> {
        const HANDLERS: u8 = 3;
        const CHAINED: u8 = 4;
        let Some(mut at) = of.unwind else {
            return Ok(None);
        };
        if self.machine == PeMachine::Arm64 {
            let place = functions::arm64_handler(self, at)?;
            let handler = |place: Rva| {
                let routine = self.rva_at(place, 0, "a handler")?;
                let data = Rva(place.0 + 4);
                Ok(Handler { routine, data })
            };
            return place.map(handler).transpose();
        }
        for _ in 0..LONGEST_CHAIN {
            if at.0 & 1 != 0 {
                at = self.rva_at(Rva(at.0 & !1), 8, "an entry of .pdata")?;
                continue;
            }
            let header: [u8; 4] = self.array(at).ok_or_else(|| outside("unwind data", at))?;
            let (version, flags) = (header[0] & 7, header[0] >> 3);
            if !matches!(version, 1 | 2) {
                let text = format!("unwind data of version {version} at {at}");
                return Err(PeError::Unsupported(text));
            }
            let codes = u64::from(header[2]).next_multiple_of(2);
            let behind = 4 + 2 * codes;
            if flags & CHAINED != 0 {
                at = self.rva_at(at, behind + 8, "chained unwind data")?;
            } else if flags & HANDLERS != 0 {
                let routine = self.rva_at(at, behind, "a handler")?;
                let data = Rva(at.0 + behind + 4);
                return Ok(Some(Handler { routine, data }));
            } else {
                return Ok(None);
            }
        }
        Err(PeError::Inconsistent(format!(
            "the unwind data at {at} are chained to themselves"
        )))
    }

    fn rva_at(&self, at: Rva, offset: u64, what: &str) -> Result<Rva, PeError> {
        let place = at.checked_add(offset).ok_or_else(|| outside(what, at))?;
        let word = self.word(place).ok_or_else(|| outside(what, place))?;
        Ok(Rva(word.into()))
    }

    /// Words of a table whose length is known, if it is in the image.
    fn table(&self, at: Rva, count: u32, words: u64) -> Result<Vec<u32>, PeError> {
        let bytes = u64::from(count).checked_mul(4 * words);
        let bytes = bytes.and_then(|size| self.bytes(at, size));
        let bytes = bytes.ok_or_else(|| outside("a table of handlers", at))?;
        let (words, _) = bytes.as_chunks();
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    /// What the tables of `__C_specific_handler` lead to: `__except` and `__finally`.
    ///
    /// # Errors
    /// When they are not in the image.
    pub fn scope_table(&self, at: Rva) -> Result<Handled, PeError> {
        /// In the place of a filter: every exception is taken.
        const ALWAYS: u32 = 1;
        let count = self.word(at).ok_or_else(|| outside("a scope table", at))?;
        let mut handled = Handled::default();
        for scope in self.table(Rva(at.0 + 4), count, 4)?.chunks_exact(4) {
            let code = [scope[2], scope[3]].into_iter();
            let code = code.filter(|at| *at > ALWAYS).map(|at| Rva(at.into()));
            handled.code.extend(code);
        }
        Ok(handled)
    }

    /// What the tables of `__CxxFrameHandler3` lead to: catches, destructors, types. `at` is where
    /// their address stands.
    ///
    /// # Errors
    /// When they are not in the image, or of a form that is not known.
    pub fn frame_tables(&self, at: Rva) -> Result<Handled, PeError> {
        const FORMS: Range<u32> = 0x1993_0520..0x1993_0523;
        let info = self.rva_at(at, 0, "tables of a C++ function")?;
        let words = self.table(info, 5, 1)?;
        let [form, states, unwind, tries, blocks] = words[..] else {
            return Err(outside("tables of a C++ function", info));
        };
        if !FORMS.contains(&(form & 0x1fff_ffff)) {
            let text = format!("tables of a C++ function with the number {form:#x}");
            return Err(PeError::Unsupported(text));
        }
        let mut handled = Handled::default();
        let place = |word: u32| (word != 0).then_some(Rva(word.into()));
        for state in self.table(Rva(unwind.into()), states, 2)?.chunks_exact(2) {
            handled.code.extend(place(state[1]));
        }
        // Many blocks may share one list: no more is read than a file of this size can hold.
        let mut budget = self.file.len();
        for block in self.table(Rva(blocks.into()), tries, 5)?.chunks_exact(5) {
            for caught in self
                .table(Rva(block[4].into()), block[3], 5)?
                .chunks_exact(5)
            {
                budget = budget
                    .checked_sub(20)
                    .ok_or_else(|| outside("a list of catches", Rva(block[4].into())))?;
                handled.types.extend(place(caught[1]));
                handled.code.extend(place(caught[3]));
            }
        }
        Ok(handled)
    }

    /// What the tables of `__CxxFrameHandler4` lead to, as [`PeImage::frame_tables`] tells it. `start` is
    /// where the function begins.
    ///
    /// # Errors
    /// When they are not in the image, or of a form that is not known.
    pub fn compressed_frame_tables(&self, start: Rva, at: Rva) -> Result<Handled, PeError> {
        let info = self.rva_at(at, 0, "tables of a C++ function")?;
        let numbers = [start, info].map(|at| u32::try_from(at.0).unwrap_or(u32::MAX));
        let bytes = |at: u32, size: u32| self.bytes(Rva(at.into()), size.into());
        let Some(found) = super::frame4::read(bytes, numbers[0], numbers[1]) else {
            let text = format!("the compressed tables of a C++ function at {info}");
            return Err(PeError::Unsupported(text));
        };
        let places = |all: Vec<u32>| {
            let all = all.into_iter().filter(|at| *at != 0);
            all.map(|at| Rva(at.into())).collect()
        };
        Ok(Handled {
            code: places(found.code),
            types: places(found.types),
        })
    }

    /// What a description of a thrown object (`ThrowInfo`) leads to: destructor, copy constructors,
    /// types.
    ///
    /// # Errors
    /// When it is not in the image.
    pub fn thrown(&self, at: Rva) -> Result<Handled, PeError> {
        let mut handled = Handled::default();
        let place = |word: u32| (word != 0).then_some(Rva(word.into()));
        let info = self.table(at, 4, 1)?;
        handled.code.extend(place(info[1]));
        let Some(list) = place(info[3]) else {
            return Ok(handled);
        };
        let count = self
            .word(list)
            .ok_or_else(|| outside("thrown types", list))?;
        for one in self.table(Rva(list.0 + 4), count, 1)? {
            let caught = self.table(Rva(one.into()), 7, 1)?;
            handled.types.extend(place(caught[1]));
            handled.code.extend(place(caught[6]));
        }
        Ok(handled)
    }
}
