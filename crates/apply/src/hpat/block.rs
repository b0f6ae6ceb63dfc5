//! The memory that a patched base gets in the target: what was done, twice, so that one of them is
//! whole at any time, and the address table.

use std::ops::Range;

use invivo_image::LiveAddr;

use super::{Host, HotPatchRecord, SLOTS};
use crate::pe::Ledger;
use crate::{ApplyError, Protection, Target, TargetError, refused};

const MAGIC: [u8; 8] = *b"invivoW1";

/// Bytes of a page; the block begins with one that says what it is.
const PAGE: u64 = 0x1000;

/// Bytes that each of the two places for a record has.
const PLACE: u64 = 0x8_0000;

/// Pairs of pages that the table has: room for four times the functions of a large patch.
const PAIRS: u64 = 4;

/// Bytes of the table.
pub(super) const RESERVE: u64 = PAIRS * 2 * PAGE;

/// Bytes of a block.
pub(super) const SIZE: u64 = PAGE + 2 * PLACE + RESERVE;

/// A block in a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    at: LiveAddr,
    ledger: Ledger,
}

impl Block {
    /// A new one near an image, with pages for its table.
    pub(super) fn new(host: &mut dyn Host, near: &Range<LiveAddr>) -> Result<Block, TargetError> {
        let at = host.reserve(Some(near), SIZE)?;
        let ledger = Ledger::new(LiveAddr(at.0 + PAGE), PLACE);
        let block = Block { at, ledger };
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
        table_of(self.at)
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
        let found = Ledger::open(target, LiveAddr(at.0 + PAGE), PLACE);
        let Some((ledger, record)) = found else {
            return Ok(None);
        };
        let record: HotPatchRecord = record;
        let block = Block { at, ledger };
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
        self.ledger.write(target, record)
    }

    /// All of it.
    pub(super) fn range(self) -> Range<LiveAddr> {
        self.at..LiveAddr(self.at.0 + SIZE)
    }

    /// Says that it is none any more, and leaves the memory: somebody may still use the table.
    pub(super) fn forget(self, target: &mut dyn Target) -> Result<(), TargetError> {
        target.write(self.at, &[0; MAGIC.len()])
    }

    /// Gives it back.
    pub(super) fn release(self, host: &mut dyn Host) -> Result<(), TargetError> {
        host.release(self.at)
    }
}

/// Where the table is of a block that begins at `at`.
pub(super) fn table_of(at: LiveAddr) -> LiveAddr {
    LiveAddr(at.0 + PAGE + 2 * PLACE)
}

/// Makes the pages of a table: each second one is for code.
pub(super) fn tables(host: &mut dyn Host, at: LiveAddr, size: u64) -> Result<(), TargetError> {
    for pair in (0..size).step_by(2 * PAGE as usize) {
        let code = LiveAddr(at.0 + pair);
        host.protect(code..LiveAddr(code.0 + PAGE), Protection::ReadExecute)?;
    }
    Ok(())
}
