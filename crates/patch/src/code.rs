//! Copied code: bytes, what is filled in, and islands for short jumps.
//!
//! A compiler jumps to a neighbour with two bytes where it can (`jmp` to the next
//! function for a tail call). The copy has other neighbours, so such a jump leads to
//! an island: a long jump beside the function, before or behind it, on the side to
//! which the short one led.

use invivo_image::x86_64::{Line, Reference, ReferenceKind};

use crate::model::{Relocation, RelocationKind, Section};
use crate::references::Target;

/// `jmp rel32`.
const JUMP: usize = 5;
/// `lea` of a place, and `mov` from it: both are as long, with the same operands behind.
const LEA: u8 = 0x8d;
const MOV: u8 = 0x8b;
/// That operand begins one byte behind the opcode, with which register it is.
const REGISTER: usize = 1;
/// Functions keep this alignment behind islands.
const ALIGN: usize = 16;

/// A short jump that leads out of its function.
struct Island {
    /// Where the instruction behind the jump starts, and where its distance stands.
    next: usize,
    place: usize,
    target: Target,
    before: bool,
}

/// A function's code in the making. Offsets count from the function's start.
pub(crate) struct Code {
    bytes: Vec<u8>,
    relocations: Vec<Relocation>,
    islands: Vec<Island>,
}

impl Code {
    pub(crate) fn new(bytes: &[u8]) -> Code {
        Code {
            bytes: bytes.to_vec(),
            relocations: Vec::new(),
            islands: Vec::new(),
        }
    }

    /// Makes the instruction `line`, which is at `offset`, refer to `target`.
    pub(crate) fn refer(
        &mut self,
        line: &Line,
        reference: &Reference,
        offset: u64,
        target: Target,
    ) -> Result<(), String> {
        let (symbol, addend) = target;
        let place = offset + u64::from(reference.offset);
        let length = line.instruction.len();
        let (kind, addend) = match (reference.kind, reference.width) {
            (ReferenceKind::Absolute, 8) => (RelocationKind::Absolute64, addend),
            (ReferenceKind::Absolute, 4) => (RelocationKind::Absolute32Signed, addend),
            (ReferenceKind::Jump, 1) => {
                let start = usize::try_from(offset).map_err(|e| e.to_string())?;
                self.islands.push(Island {
                    next: start + length,
                    place: start + usize::from(reference.offset),
                    target,
                    before: reference.target < line.at(),
                });
                return self.islands_are_near();
            }
            (_, 4) => {
                let rest =
                    i64::try_from(length).map_err(|e| e.to_string())? - i64::from(reference.offset);
                (RelocationKind::Relative32, addend - rest)
            }
            _ => return Err(format!("the operand at {} cannot be bound", line.at())),
        };
        self.relocations.push(Relocation {
            offset: place,
            kind,
            symbol,
            addend,
        });
        Ok(())
    }

    /// Makes an instruction that takes the address of another image's variable read it out of a slot.
    pub(crate) fn load(
        &mut self,
        line: &Line,
        reference: &Reference,
        offset: u64,
        slot: Target,
    ) -> Result<(), String> {
        let start = usize::try_from(offset).map_err(|e| e.to_string())?;
        let place = start + usize::from(reference.offset);
        let opcode = place.checked_sub(REGISTER + 1);
        let opcode = opcode.and_then(|at| self.bytes.get_mut(at));
        match opcode.filter(|byte| line.takes_address() && **byte == LEA) {
            Some(byte) => *byte = MOV,
            None => return Err(format!("the operand at {} cannot be bound", line.at())),
        }
        self.refer(line, reference, offset, slot)
    }

    /// Where the function starts in its section: behind the islands before it.
    pub(crate) fn start(&self) -> u64 {
        self.room_before() as u64
    }

    fn room_before(&self) -> usize {
        let before = self.islands.iter().filter(|island| island.before).count();
        (before * JUMP).next_multiple_of(ALIGN)
    }

    /// Where each island starts, in the section.
    fn places(&self) -> Vec<usize> {
        let room = self.room_before();
        let (mut before, mut behind) = (room, room + self.bytes.len());
        let place = |island: &Island| {
            if island.before {
                before -= JUMP;
                return before;
            }
            behind += JUMP;
            behind - JUMP
        };
        self.islands.iter().map(place).collect()
    }

    fn islands_are_near(&self) -> Result<(), String> {
        let room = self.room_before();
        let near = self
            .islands
            .iter()
            .zip(self.places())
            .all(|(island, place)| distance(place, room + island.next).is_some());
        if near {
            Ok(())
        } else {
            Err("too many short jumps leave it".to_owned())
        }
    }

    /// Puts the code into its section.
    pub(crate) fn store(mut self, section: &mut Section) {
        let room = self.room_before();
        let places = self.places();
        // Nothing runs between an island and the function: int3.
        let mut bytes = vec![0xcc; room];
        for (island, place) in self.islands.iter().zip(&places) {
            if let Some(short) = distance(*place, room + island.next) {
                self.bytes[island.place] = short.to_le_bytes()[0];
            }
        }
        bytes.extend(&self.bytes);
        let behind = self.islands.iter().filter(|island| !island.before).count();
        bytes.resize(bytes.len() + behind * JUMP, 0xcc);
        for relocation in &mut self.relocations {
            relocation.offset += room as u64;
        }
        for (island, place) in self.islands.iter().zip(places) {
            bytes[place] = 0xe9;
            bytes[place + 1..place + JUMP].fill(0);
            let (symbol, addend) = island.target;
            let (offset, kind) = (place as u64 + 1, RelocationKind::Relative32);
            self.relocations.push(Relocation {
                offset,
                kind,
                symbol,
                addend: addend - 4,
            });
        }
        section.bytes = bytes;
        section.relocations = self.relocations;
    }
}

fn distance(place: usize, next: usize) -> Option<i8> {
    let (place, next) = (i64::try_from(place).ok()?, i64::try_from(next).ok()?);
    i8::try_from(place - next).ok()
}
