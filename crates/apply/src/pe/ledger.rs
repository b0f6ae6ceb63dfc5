//! A record in the target's memory, twice: while one is written the other is whole.

use invivo_image::LiveAddr;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::{ApplyError, Target, refused};

/// Number, length, digest.
const HEAD: usize = 8 + 8 + 32;

/// Two places beside each other, and which of them was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ledger {
    at: LiveAddr,
    /// Bytes of each place.
    place: u64,
    /// The number of the record that is valid; 0 where there is none.
    number: u64,
}

impl Ledger {
    /// Two places of `place` bytes each from `at` on, in memory that is zero.
    pub(crate) fn new(at: LiveAddr, place: u64) -> Ledger {
        let number = 0;
        Ledger { at, place, number }
    }

    /// The newer of the records that are whole; `None` where none is: a tool that died may have
    /// made the memory and nothing else.
    pub(crate) fn open<T: DeserializeOwned>(
        target: &dyn Target,
        at: LiveAddr,
        place: u64,
    ) -> Option<(Ledger, T)> {
        let mut ledger = Ledger::new(at, place);
        let records = [0, 1].map(|which| ledger.read(target, which));
        let newest = records.into_iter().flatten();
        let (number, record) = newest.max_by_key(|(number, _)| *number)?;
        ledger.number = number;
        Some((ledger, record))
    }

    /// Writes a record; the one before it stays whole until then.
    pub(crate) fn write<T: Serialize>(
        &mut self,
        target: &mut dyn Target,
        record: &T,
    ) -> Result<(), ApplyError> {
        let text = serde_json::to_vec(record)
            .or_else(|error| refused(format!("the record cannot be written: {error}")))?;
        let Some(number) = self.number.checked_add(1) else {
            return refused("somebody changed the record's number");
        };
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(digest(number, &text));
        bytes.extend(text);
        if bytes.len() as u64 > self.place {
            return refused("the record of so many functions has no room");
        }
        target.write(self.of(number), &bytes)?;
        self.number = number;
        Ok(())
    }

    fn of(&self, number: u64) -> LiveAddr {
        LiveAddr(self.at.0 + (number % 2) * self.place)
    }

    fn read<T: DeserializeOwned>(&self, target: &dyn Target, which: u64) -> Option<(u64, T)> {
        let at = self.of(which);
        let mut head = [0; HEAD];
        target.read(at, &mut head).ok()?;
        let number = u64::from_le_bytes(head[..8].try_into().ok()?);
        let length = u64::from_le_bytes(head[8..16].try_into().ok()?);
        if number == 0 || number % 2 != which || length > self.place - HEAD as u64 {
            return None;
        }
        let mut text = vec![0; usize::try_from(length).ok()?];
        target.read(LiveAddr(at.0 + HEAD as u64), &mut text).ok()?;
        if digest(number, &text)[..] != head[16..] {
            return None;
        }
        let record = serde_json::from_slice(&text).ok()?;
        Some((number, record))
    }
}

fn digest(number: u64, text: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(number.to_le_bytes());
    digest.update(text);
    digest.finalize().into()
}
