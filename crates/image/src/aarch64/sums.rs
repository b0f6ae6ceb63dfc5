//! Tables that code of ARM64 jumps through: an entry is read, and added to an address.

use super::pages::{REGISTERS, State, Value};
use super::registers::access;

/// A jump through a table of distances from `from`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jump {
    /// Where the table is.
    pub(super) table: u64,
    /// Bytes of an entry.
    pub(super) width: u8,
    /// What is added to each.
    pub(super) from: u64,
    /// By how much an entry is shifted before.
    pub(super) shift: u32,
    /// Entries have a sign.
    pub(super) signed: bool,
}

/// Entries of tables in registers, and what they are added to: `ldrb w11, [x9, x8]`, `add x10, x10, x11,
/// lsl #2`.
#[derive(Default)]
pub(super) struct Sums {
    entries: [Option<(u64, u8, bool)>; 32],
    jumps: [Option<Jump>; 32],
}

impl Sums {
    pub(super) fn jump(&self, register: usize) -> Option<Jump> {
        self.jumps[register & 31]
    }

    pub(super) fn step(&mut self, word: u32, state: &State) {
        let number = |shift: u32| (word >> shift & 31) as usize;
        let (to, from, second) = (number(0), number(5), number(16));
        let address = |register: usize| match state.get(register) {
            Some(Value::Address(at)) => Some(*at),
            _ => None,
        };
        let entry = || {
            let is_load = word & 0x3f20_0c00 == 0x3820_0800 && word >> 22 & 3 != 0;
            let width = 1u8 << (word >> 30);
            let table = address(from).filter(|_| is_load && width <= 4)?;
            // `ldrsw` and its like keep the sign.
            Some((table, width, width == 4 || word >> 23 & 1 != 0))
        };
        let jump = || {
            let shifted = word & 0xffe0_0000 == 0x8b00_0000;
            let extended = word & 0xffe0_0000 == 0x8b20_0000;
            let shift = match (shifted, extended) {
                (true, _) => word >> 10 & 63,
                (_, true) => word >> 10 & 7,
                _ => return None,
            };
            let (table, width, signed) = self.entries[second]?;
            let extends = extended && word >> 15 & 1 != 0;
            Some(Jump {
                table,
                width,
                from: address(from)?,
                shift,
                signed: signed || extends,
            })
        };
        let (entry, jump) = (entry(), jump());
        let writes = access(word).map_or(u32::MAX, |access| access.writes);
        for register in 0..REGISTERS {
            if writes >> register & 1 != 0 {
                (self.entries[register], self.jumps[register]) = (None, None);
            }
        }
        if entry.is_some() {
            self.entries[to] = entry;
        }
        if jump.is_some() {
            self.jumps[to] = jump;
        }
    }
}
