//! `.livepatch.funcs` (X27–X34, X51–X53).

use super::super::file::{half, name as text_at, shown, word};
use super::super::function::{JUMP, MOST_NOPS, StructureVersion, has_endbr, shortest_patchable};
use super::super::hypervisor::Hypervisor;
use super::super::version::XenVersion;
use super::super::{FUNCTIONS, Rule};
use super::memory::Word;
use super::{Loader, Value};

/// The reach of a jump.
const REACH: i64 = 2 << 30;

/// A function as Xen sees it.
pub(super) struct Seen {
    /// Its name, or its number.
    pub(super) name: String,
    pub(super) new: Word,
    pub(super) old: Word,
    pub(super) new_size: u32,
    pub(super) old_size: u32,
    /// The byte before the expectation, and it.
    pub(super) expectation: [u8; 32],
}

impl Seen {
    pub(super) fn is_nop(&self) -> bool {
        self.new == Word::Known(0)
    }

    /// True if Xen looks at what is expected there, and changes nothing: any place will do then.
    fn only_looks(&self, xen: &Hypervisor<'_>) -> bool {
        let is_there = self.old_bytes(Some(xen)).is_some_and(|bytes| {
            // An expectation has fewer bytes than this, and so has an `ENDBR64`.
            bytes.len() > MOST_NOPS as usize
        });
        self.is_nop() && self.new_size == 0 && is_there
    }

    /// The old function's code and what is behind it.
    pub(super) fn old_bytes<'x>(&self, xen: Option<&'x Hypervisor<'x>>) -> Option<&'x [u8]> {
        match self.old {
            Word::Known(old) => xen?.bytes(old),
            Word::Unknown => None,
        }
    }
}

impl<'l> Loader<'l> {
    pub(super) fn look_at_functions(&mut self) {
        let Some(number) = self.loaded(FUNCTIONS) else {
            return;
        };
        let Some(table) = self.memory.kept.remove(&number) else {
            return;
        };
        let size = StructureVersion::V2.size();
        if !table.bytes.len().is_multiple_of(size) {
            let text = format!(
                "{FUNCTIONS} has {} bytes, {size} for each function",
                table.bytes.len()
            );
            return self.found.add(Rule::X27, text);
        }
        let structures = table.bytes.chunks_exact(size);
        for (number, (bytes, at)) in structures.zip((0..).step_by(size)).enumerate() {
            let pointer = table.long(at);
            let name = match pointer {
                Word::Known(pointer) => self.text(pointer),
                Word::Unknown => None,
            };
            let shown = match name {
                Some(name) => shown(name),
                None => format!("function {number}"),
            };
            let mut expectation = [0; 32];
            expectation.copy_from_slice(&bytes[72..]);
            let mut seen = Seen {
                name: shown,
                new: table.long(at + 8),
                old: table.long(at + 16),
                new_size: word(bytes, 24),
                old_size: word(bytes, 28),
                expectation,
            };
            if bytes[32] != StructureVersion::V2.number() {
                self.found.add(
                    Rule::X28,
                    format!("{} has the version {}", seen.name, bytes[32]),
                );
            } else if seen.old_size == 0 {
                self.found
                    .add(Rule::X29, format!("{} has no old size", seen.name));
            } else {
                self.place_of_old(&mut seen, pointer, name);
                self.room(&seen);
                self.distance(&seen);
            }
            // What could make Xen skip the function: its own state, where old versions keep it.
            let is_state = self.options.version <= XenVersion::LAST_WITH_STATE;
            if is_state && half(bytes, 64) != 0 {
                self.found.add(
                    Rule::X67,
                    format!("{}: the bytes at 64 are {:#x}", seen.name, half(bytes, 64)),
                );
            }
            self.functions.push(seen);
        }
    }

    /// The text of the payload that a pointer leads to.
    fn text(&self, pointer: u64) -> Option<&'l [u8]> {
        let places = self.memory.places.iter().zip(&self.file.sections);
        let mut inside = places.filter_map(|(place, section)| {
            let offset = pointer.checked_sub((*place)?)?;
            (offset < section.size)
                .then(|| text_at(self.file.contents(section), u32::try_from(offset).ok()?))
        });
        inside.next().flatten()
    }

    /// X30, X51 to X53.
    fn place_of_old(&mut self, seen: &mut Seen, pointer: Word, name: Option<&[u8]>) {
        if seen.old == Word::Known(0) {
            let found = match (pointer, name) {
                (_, Some(name)) => self.find(name, Rule::X30, "the old function"),
                (Word::Known(pointer), None) => {
                    let text = format!("{}: address 0, and a name at {pointer:#x}", seen.name);
                    return self.found.add(Rule::X52, text);
                }
                (Word::Unknown, None) => Value::Unknown,
            };
            seen.old = match found {
                Value::Known(address) => Word::Known(address),
                Value::Unknown | Value::Ignored => Word::Unknown,
            };
        }
        let (Word::Known(old), Some(xen)) = (seen.old, self.options.xen) else {
            if seen.old != Word::Unknown {
                self.found.without_xen(Rule::X51);
            }
            return self.found.without_xen(Rule::X53);
        };
        if xen.is_for_boot(old) {
            let text = format!("{} at {old:#x} runs only at boot", seen.name);
            self.found.add(Rule::X53, text);
        } else if !xen.is_start(old) && !seen.only_looks(xen) {
            let text = format!("{}: no function of Xen begins at {old:#x}", seen.name);
            self.found.add(Rule::X51, text);
        }
    }

    /// X31 to X33.
    fn room(&mut self, seen: &Seen) {
        let (name, new_size, old_size) = (&seen.name, seen.new_size, seen.old_size);
        if seen.is_nop() {
            if new_size > MOST_NOPS {
                self.found
                    .add(Rule::X31, format!("{new_size} NOPs in {name}"));
            } else if old_size < new_size {
                self.found.add(
                    Rule::X32,
                    format!("{new_size} NOPs in {name}, which has {old_size} bytes"),
                );
            }
            return;
        }
        let code = seen.old_bytes(self.options.xen);
        let needed = code.map_or(JUMP, shortest_patchable);
        if code.is_none() && old_size < shortest_patchable(&[0xf3, 0x0f, 0x1e, 0xfa]) {
            self.found.without_xen(Rule::X33);
        }
        if old_size < needed {
            let behind = if code.is_some_and(has_endbr) {
                " behind ENDBR64"
            } else {
                ""
            };
            let text = format!("{name} has {old_size} bytes, a jump{behind} takes {needed}");
            self.found.add(Rule::X33, text);
        }
    }

    /// X34.
    fn distance(&mut self, seen: &Seen) {
        let (Word::Known(old), Word::Known(new)) = (seen.old, seen.new) else {
            return;
        };
        let distance = old.wrapping_sub(new).cast_signed();
        if !seen.is_nop() && !(-REACH..REACH).contains(&distance) {
            let text = format!("{} at {old:#x} is replaced by {new:#x}", seen.name);
            self.found.add(Rule::X34, text);
        }
    }
}
