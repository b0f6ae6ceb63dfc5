//! The address table behind an image: pairs of pages, one of jumps and one of what they read.

use invivo_image::LiveAddr;
use invivo_image::pe::PeMachine;

use crate::pe::bytes;
use crate::{ApplyError, Loaded, Region, Target, refused};

/// Entries in a pair of pages.
pub const SLOTS: u32 = 512;

/// Bytes of a pair of pages.
const PAIR: u64 = 0x2000;

/// From a jump to what it reads.
const TO_POINTER: u64 = 0x1000;

/// Two bytes at a function: a jump to five bytes before it.
pub(super) const ENTRY: [u8; 2] = [0xeb, 0xf9];

/// Entries that the reserve behind an image has.
pub(super) fn capacity(image: &Loaded) -> u32 {
    let pairs = u32::try_from(image.reserve / PAIR).unwrap_or(u32::MAX);
    pairs.saturating_mul(SLOTS)
}

/// An entry of an image's address table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Where its jump is.
    pub(super) code: LiveAddr,
    /// Where the address is that it jumps to.
    pub(super) pointer: LiveAddr,
}

impl Slot {
    /// The entry with a number below the capacity.
    pub(super) fn of(image: &Loaded, index: u32) -> Slot {
        let offset = u64::from(index / SLOTS) * PAIR + 8 * u64::from(index % SLOTS);
        let table = image.table.unwrap_or(image.end());
        let code = LiveAddr(table.0.saturating_add(offset));
        Slot {
            code,
            pointer: LiveAddr(code.0.saturating_add(TO_POINTER)),
        }
    }

    /// Its jump.
    pub(super) fn jump(self, image: &Loaded) -> Result<[u8; 8], ApplyError> {
        let mut jump = [0xff, 0x25, 0, 0, 0, 0, 0xcc, 0xcc];
        let operand = match image.image.machine {
            // Relative to the next instruction, which begins six bytes on.
            PeMachine::Amd64 => 0xffa,
            _ => u32::try_from(self.pointer.0)
                .or_else(|_| refused(format!("{} is no 32-bit address", self.pointer)))?,
        };
        jump[2..6].copy_from_slice(&operand.to_le_bytes());
        Ok(jump)
    }

    /// The jump to it from five bytes before a function.
    pub(super) fn approach(self, function: LiveAddr) -> Result<[u8; 5], ApplyError> {
        let distance = i128::from(self.code.0) - i128::from(function.0);
        let distance = i32::try_from(distance).or_else(|_| {
            refused(format!(
                "the address table at {} is too far away",
                self.code
            ))
        })?;
        let mut jump = [0xe9; 5];
        jump[1..].copy_from_slice(&distance.to_le_bytes());
        Ok(jump)
    }
}

/// An address as the image's machine stores it.
pub(super) fn pointer(image: &Loaded, address: u64) -> Result<Vec<u8>, ApplyError> {
    match image.image.machine.pointer_size() {
        4 => match u32::try_from(address) {
            Ok(address) => Ok(address.to_le_bytes().to_vec()),
            Err(_) => refused(format!("{address:#x} is no 32-bit address")),
        },
        _ => Ok(address.to_le_bytes().to_vec()),
    }
}

/// Refuses a table that is not there, or in which entries from `first` on are used by somebody.
pub(super) fn check_room(
    target: &dyn Target,
    image: &Loaded,
    first: u32,
    count: u32,
) -> Result<(), ApplyError> {
    if count == 0 {
        return Ok(());
    }
    let capacity = capacity(image);
    if first.checked_add(count).is_none_or(|end| end > capacity) {
        return refused(format!(
            "the address table behind {} has {capacity} entries, {first} are used and {count} \
             more are needed",
            image.at
        ));
    }
    // Pages of code and of pointers take turns, so the last one of each is remembered.
    let mut known = [None::<Region>, None];
    for index in first..first + count {
        let slot = Slot::of(image, index);
        for (at, executable) in [(slot.code, true), (slot.pointer, false)] {
            let last = &mut known[usize::from(executable)];
            if last
                .as_ref()
                .is_none_or(|region| !region.range.contains(&at))
            {
                *last = target.region_at(at)?;
            }
            if last
                .as_ref()
                .is_none_or(|region| region.executable != executable)
            {
                let page = if executable { "code" } else { "pointers" };
                return refused(format!("the address table has no page of {page} at {at}"));
            }
            let found: [u8; 8] = bytes(target, at)?;
            if found != [0; 8] {
                return refused(format!("somebody else uses the address table at {at}"));
            }
        }
    }
    Ok(())
}
