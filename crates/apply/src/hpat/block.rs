//! The memory that a patched base gets in the target: what was done, twice, so that one of them is
//! whole at any time, and the address table.

use std::ops::Range;

use invivo_image::LiveAddr;
use sha2::{Digest as _, Sha256};

use super::{Host, HotPatchRecord, SLOTS};
use crate::{ApplyError, Protection, Target, TargetError, refused};

const MAGIC: [u8; 8] = *b"invivoW1";

/// Bytes of a page; the block begins with one that says what it is.
const PAGE: u64 = 0x1000;

/// Bytes that each of the two places for a record has.
const PLACE: u64 = 0x8_0000;

/// Number, length, digest.
const HEAD: usize = 8 + 8 + 32;

/// Pairs of pages that the table has: room for four times the functions of a large patch.
const PAIRS: u64 = 4;

/// Bytes of the table.
pub(super) const RESERVE: u64 = PAIRS * 2 * PAGE;

/// Bytes of a block.
const SIZE: u64 = PAGE + 2 * PLACE + RESERVE;

/// A block in a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    at: LiveAddr,
    /// The number of the record that is valid.
    number: u64,
}

impl Block {
    /// A new one near an image, with pages for its table.
    pub(super) fn new(host: &mut dyn Host, near: &Range<LiveAddr>) -> Result<Block, TargetError> {
        let at = host.reserve(near, SIZE)?;
        let block = Block { at, number: 0 };
        let made = host
            .write(at, &MAGIC)
            .and_then(|()| tables(host, block.table(), RESERVE));
        if let Err(error) = made {
            // Nothing is in it that anybody needs.
            let _ = host.release(at);
            return Err(error);
        }
        Ok(block)
    }

    /// The table.
    pub(super) fn table(self) -> LiveAddr {
        LiveAddr(self.at.0 + PAGE + 2 * PLACE)
    }

    /// What is in the memory that begins at `at`; `None` where it is no such block.
    pub(super) fn open(
        target: &dyn Target,
        at: LiveAddr,
    ) -> Result<Option<(Block, HotPatchRecord)>, ApplyError> {
        let mut magic = [0; 8];
        if target.read(at, &mut magic).is_err() || magic != MAGIC {
            return Ok(None);
        }
        let records = [0, 1].map(|place| read(target, at, place));
        let newest = records
            .into_iter()
            .flatten()
            .max_by_key(|(number, _)| *number);
        // A tool that died may have made the block and nothing else.
        let Some((number, record)) = newest else {
            return Ok(None);
        };
        let block = Block { at, number };
        let most = PAIRS * u64::from(SLOTS);
        let fits = |index: u32| u64::from(index) < most;
        let sound = record.table == block.table().0
            && record.reserve == RESERVE
            && record.entries.len() as u64 <= most
            && record.entries.iter().all(|entry| fits(entry.index))
            && record.entries.iter().all(|entry| entry.at >= 0x10);
        if !sound {
            return refused(format!("the record at {at} contradicts itself"));
        }
        Ok(Some((block, record)))
    }

    /// Writes a record; the one before it stays whole until then.
    pub(super) fn write(
        &mut self,
        target: &mut dyn Target,
        record: &HotPatchRecord,
    ) -> Result<(), ApplyError> {
        let text = serde_json::to_vec(record)
            .or_else(|error| refused(format!("the record cannot be written: {error}")))?;
        let number = self.number + 1;
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(digest(number, &text));
        bytes.extend(text);
        if bytes.len() as u64 > PLACE {
            return refused("the record of so many functions has no room");
        }
        target.write(place(self.at, number), &bytes)?;
        self.number = number;
        Ok(())
    }

    /// Gives it back.
    pub(super) fn release(self, host: &mut dyn Host) -> Result<(), TargetError> {
        host.release(self.at)
    }
}

/// Makes the pages of a table: each second one is for code.
pub(super) fn tables(host: &mut dyn Host, at: LiveAddr, size: u64) -> Result<(), TargetError> {
    for pair in (0..size).step_by(2 * PAGE as usize) {
        let code = LiveAddr(at.0 + pair);
        host.protect(code..LiveAddr(code.0 + PAGE), Protection::ReadExecute)?;
    }
    Ok(())
}

fn place(at: LiveAddr, number: u64) -> LiveAddr {
    LiveAddr(at.0 + PAGE + (number % 2) * PLACE)
}

fn digest(number: u64, text: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(number.to_le_bytes());
    digest.update(text);
    digest.finalize().into()
}

fn read(target: &dyn Target, at: LiveAddr, which: u64) -> Option<(u64, HotPatchRecord)> {
    let at = place(at, which);
    let mut head = [0; HEAD];
    target.read(at, &mut head).ok()?;
    let number = u64::from_le_bytes(head[..8].try_into().ok()?);
    let length = u64::from_le_bytes(head[8..16].try_into().ok()?);
    if number == 0 || number % 2 != which || length > PLACE - HEAD as u64 {
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
