//! The old unwind records (`.eh_frame`) at another place: readers know one stretch of them, so the
//! new ones must stand right behind the old.

use std::collections::HashMap;

use super::{KeptError, unfit};

/// `DW_EH_PE_omit`, and the parts of the others: the form of the value, and what it is relative to.
const OMIT: u8 = 0xff;
const FORM: u8 = 0x0f;
const RELATIVE_TO: u8 = 0x70;
const PLACE: u8 = 0x10;

/// What records of functions need to know of the common ones.
#[derive(Clone, Copy, Debug)]
struct Common {
    pointers: u8,
    lsda: u8,
    augmented: bool,
}

/// Records that are copied to another place.
#[derive(Debug)]
pub(super) struct Records {
    bytes: Vec<u8>,
    /// Where pointers are that are relative to their own places, and how long they are.
    pointers: Vec<(usize, usize)>,
}

impl Records {
    /// The records at the start of `bytes` up to their end; `moves` is true where the loader
    /// chooses the place of the file.
    pub(super) fn read(bytes: &[u8], moves: bool) -> Result<Records, KeptError> {
        let records = walk(bytes, moves);
        records.map_or_else(
            || unfit("its unwind data are of a form that cannot be moved"),
            Ok,
        )
    }

    /// Bytes that they have, wherever they are.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// As they must be at a place that is `distance` bytes further on.
    pub(super) fn moved(mut self, distance: u64) -> Result<Vec<u8>, KeptError> {
        for (at, size) in &self.pointers {
            let field = &mut self.bytes[*at..at + size];
            if correct(field, distance).is_none() {
                return unfit("its unwind data are too far from the code");
            }
        }
        Ok(self.bytes)
    }
}

/// Makes a pointer that is relative to its own place right for one that is further on.
fn correct(field: &mut [u8], distance: u64) -> Option<()> {
    let distance = i64::try_from(distance).ok()?;
    if let Ok(value) = <[u8; 4]>::try_from(&*field) {
        let value = i64::from(i32::from_le_bytes(value)).checked_sub(distance)?;
        field.copy_from_slice(&i32::try_from(value).ok()?.to_le_bytes());
    } else {
        let value = i64::from_le_bytes((&*field).try_into().ok()?);
        field.copy_from_slice(&value.checked_sub(distance)?.to_le_bytes());
    }
    Some(())
}

fn walk(bytes: &[u8], moves: bool) -> Option<Records> {
    let mut walk = Walk {
        bytes,
        moves,
        pointers: Vec::new(),
    };
    let mut commons = HashMap::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = word(bytes, at)? as usize;
        // The end; 0xffffffff begins records of more than 4 GiB.
        if length == 0 {
            break;
        }
        let end = at.checked_add(4)?.checked_add(length)?;
        if length == 0xffff_ffff || end > bytes.len() {
            return None;
        }
        let id = word(bytes, at + 4)? as usize;
        if id == 0 {
            commons.insert(at, walk.common(at + 8, end)?);
        } else {
            let common = commons.get(&(at + 4).checked_sub(id)?)?;
            walk.function(at + 8, end, *common)?;
        }
        at = end;
    }
    Some(Records {
        bytes: bytes.get(..at)?.to_vec(),
        pointers: walk.pointers,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

struct Walk<'b> {
    bytes: &'b [u8],
    moves: bool,
    pointers: Vec<(usize, usize)>,
}

impl Walk<'_> {
    /// A common record, whose version is at `at`.
    fn common(&mut self, mut at: usize, end: usize) -> Option<Common> {
        let version = *self.bytes.get(at)?;
        at += 1;
        let rest = self.bytes.get(at..end)?;
        let length = rest.iter().position(|byte| *byte == 0)?;
        let augmentation = rest[..length].to_vec();
        at += length + 1;
        self.number(&mut at)?; // Code alignment.
        self.number(&mut at)?; // Data alignment.
        if version == 1 {
            at += 1; // Return address.
        } else {
            self.number(&mut at)?;
        }
        let mut common = Common {
            pointers: 0,
            lsda: OMIT,
            augmented: augmentation.first() == Some(&b'z'),
        };
        if !common.augmented {
            return augmentation.is_empty().then_some(common);
        }
        self.number(&mut at)?;
        for letter in &augmentation[1..] {
            match letter {
                b'L' => common.lsda = self.byte(&mut at)?,
                b'R' => common.pointers = self.byte(&mut at)?,
                b'P' => {
                    let encoding = self.byte(&mut at)?;
                    self.pointer(&mut at, encoding)?;
                }
                b'S' | b'B' => {}
                _ => return None,
            }
        }
        (at <= end).then_some(common)
    }

    /// A function's record, whose first address is at `at`.
    fn function(&mut self, mut at: usize, end: usize, common: Common) -> Option<()> {
        self.pointer(&mut at, common.pointers)?;
        at += size(common.pointers)?; // How long the function is.
        if common.augmented {
            self.number(&mut at)?;
            if common.lsda != OMIT {
                self.pointer(&mut at, common.lsda)?;
            }
        }
        (at <= end).then_some(())
    }

    fn byte(&self, at: &mut usize) -> Option<u8> {
        let byte = *self.bytes.get(*at)?;
        *at += 1;
        Some(byte)
    }

    /// Steps over a number of as many bytes as it needs.
    fn number(&self, at: &mut usize) -> Option<()> {
        while self.byte(at)? & 0x80 != 0 {}
        Some(())
    }

    /// Notes a pointer that is relative to its own place.
    fn pointer(&mut self, at: &mut usize, encoding: u8) -> Option<()> {
        let size = size(encoding)?;
        let field = self.bytes.get(*at..)?.get(..size)?;
        let place = *at;
        *at += size;
        if field.iter().all(|byte| *byte == 0) {
            return Some(()); // There is none.
        }
        match encoding & RELATIVE_TO {
            // An address, which the loader corrects at the old place alone.
            0 => (!self.moves).then_some(()),
            PLACE => {
                self.pointers.push((place, size));
                Some(())
            }
            _ => None,
        }
    }
}

/// Bytes of a pointer: four or eight.
fn size(encoding: u8) -> Option<usize> {
    match encoding & FORM {
        0x00 | 0x04 | 0x0c => Some(8),
        0x03 | 0x0b => Some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Records;

    fn moved(bytes: &[u8], distance: u64, moves: bool) {
        if let Ok(records) = Records::read(bytes, moves) {
            let _ = records.moved(distance);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            distance: u64,
            moves: bool,
        ) {
            moved(&bytes, distance, moves);
            // Records that are whole, at least.
            let length = u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
            let common = [&length[..], &bytes].concat();
            moved(&common, distance, moves);
        }
    }
}
