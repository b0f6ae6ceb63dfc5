//! The new segments: where each part of the patch lies in them, and what it holds there.

use std::ops::Range;

use invivo_apply::x86_64::{Choice, choose};
use invivo_image::LiveAddr;
use invivo_patch::{
    Patch, Redirect, Relocation, RelocationKind, Section, SectionKind, SymbolPlace,
};

use super::elf::{Base, Segment};
use super::{KeptError, PAGE, link_address, unfit};

/// How many segments are added at most.
pub(super) const SEGMENTS: usize = 3;
/// `PF_R`, `PF_W`, `PF_X`.
const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;

/// Relocations that hold whole addresses.
pub(super) fn addresses(section: &Section) -> impl Iterator<Item = &Relocation> {
    let all = section.relocations.iter();
    all.filter(|relocation| relocation.kind == RelocationKind::Absolute64)
}

/// True if a section holds addresses.
pub(super) fn has_addresses(section: &Section) -> bool {
    addresses(section).next().is_some()
}

/// Bytes of what is not of the patch itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) headers: u64,
    /// The old unwind records, which stand right before the new ones.
    pub(super) records: u64,
    pub(super) unwind_table: u64,
    pub(super) relocations: u64,
}

/// A function that is replaced, and how its entry leads to the new one.
#[derive(Debug)]
struct Hooked {
    entry: u64,
    replacement: u32,
    choice: Choice,
    stub: Option<u64>,
}

/// The new segments.
#[derive(Debug)]
pub(super) struct Parts {
    /// What they hold, from the first one's start on.
    pub(super) bytes: Vec<u8>,
    /// Where the unwind records are, the old ones first.
    pub(super) records: Range<u64>,
    /// Where the table of unwind data goes.
    pub(super) unwind_table: Range<u64>,
    /// Where the loader's relocations go.
    pub(super) relocations: Range<u64>,
    /// Addresses that the loader moves: where they stand, and what they are as linked.
    pub(super) addresses: Vec<(u64, u64)>,
    /// What is written into the old file, and where.
    pub(super) hooks: Vec<(u64, Vec<u8>)>,
    segments: [Range<u64>; SEGMENTS],
    sections: Vec<u64>,
    hooked: Vec<Hooked>,
}

impl Parts {
    /// Gives each part its place, from `start` on.
    pub(super) fn place(
        patch: &Patch,
        base: &Base,
        start: u64,
        sizes: &Sizes,
    ) -> Result<Parts, KeptError> {
        let segment_of = |section: &Section| match section.kind {
            SectionKind::Text => 1,
            SectionKind::Data => 2,
            // The loader writes them; it may not write what is read only.
            _ if base.moves && has_addresses(section) => 2,
            SectionKind::ReadOnly | SectionKind::Unwind => 0,
        };
        let mut parts = Parts {
            bytes: Vec::new(),
            records: 0..0,
            unwind_table: 0..0,
            relocations: 0..0,
            addresses: Vec::new(),
            hooks: Vec::new(),
            segments: [0..0, 0..0, 0..0],
            sections: vec![0; patch.contents.sections.len()],
            hooked: hooked(patch)?,
        };
        let mut at = start;
        for number in 0..SEGMENTS {
            let first = at;
            if number == 0 {
                at += sizes.headers;
            }
            let sections = patch.contents.sections.iter().zip(&mut parts.sections);
            for (section, place) in sections.filter(|(s, _)| segment_of(s) == number) {
                let before = match section.kind {
                    SectionKind::Unwind => sizes.records,
                    _ => 0,
                };
                at = (at + before).next_multiple_of(section.align);
                // No gap: it would read as the end of the records.
                if section.kind == SectionKind::Unwind {
                    parts.records = at - before..at + section.bytes.len() as u64;
                }
                *place = at;
                at += section.bytes.len() as u64;
            }
            match number {
                0 => {
                    parts.unwind_table = table(&mut at, sizes.unwind_table);
                    parts.relocations = table(&mut at, sizes.relocations);
                }
                1 => {
                    for hooked in &mut parts.hooked {
                        // Its size does not depend on where it is.
                        let stub = hooked.choice.landing_stub(LiveAddr(at), LiveAddr(at));
                        let stub = stub.filter(|_| hooked.choice.needs_stub());
                        hooked.stub = stub.as_ref().map(|_| at);
                        at += stub.map_or(0, |code| code.len() as u64);
                    }
                }
                _ => (),
            }
            parts.segments[number] = first..at;
            at = at.next_multiple_of(PAGE);
        }
        let size = usize::try_from(at - start);
        let size = size.map_err(|_| KeptError::Unfit("the patch is too large".to_owned()))?;
        parts.bytes = vec![0; size];
        Ok(parts)
    }

    /// Writes the patch's sections, its stubs, and what hooks its functions.
    pub(super) fn fill(&mut self, patch: &Patch, base: &Base) -> Result<(), KeptError> {
        let contents = &patch.contents;
        let symbols = contents.symbols.iter();
        let symbols: Option<Vec<u64>> = symbols
            .map(|symbol| match symbol.place {
                SymbolPlace::Patch {
                    section, offset, ..
                } => self.sections.get(section as usize)?.checked_add(offset),
                ref other => link_address(patch, other),
            })
            .collect();
        let Some(symbols) = symbols else {
            return unfit("the patch refers to what is not there");
        };
        for (section, start) in contents.sections.iter().zip(self.sections.clone()) {
            let mut bytes = section.bytes.clone();
            for relocation in &section.relocations {
                let at = start + relocation.offset;
                let value =
                    symbols[relocation.symbol as usize].checked_add_signed(relocation.addend);
                let written = value.and_then(|value| relocation.kind.bytes(value, at));
                let (Some(value), Some(written)) = (value, written) else {
                    let name = &contents.symbols[relocation.symbol as usize].name;
                    return unfit(format!("{} cannot reach {name}", section.name));
                };
                let from = usize::try_from(relocation.offset).unwrap_or(usize::MAX);
                let place = bytes
                    .get_mut(from..)
                    .and_then(|rest| rest.get_mut(..written.len()));
                if let Some(place) = place {
                    place.copy_from_slice(&written);
                }
                match relocation.kind {
                    RelocationKind::Absolute64 if base.moves => self.addresses.push((at, value)),
                    RelocationKind::Absolute32 | RelocationKind::Absolute32Signed if base.moves => {
                        return unfit(format!("{} holds a short address", section.name));
                    }
                    _ => (),
                }
            }
            self.write(start, &bytes)?;
        }
        self.hook(&symbols)
    }

    fn hook(&mut self, symbols: &[u64]) -> Result<(), KeptError> {
        let far = || KeptError::Unfit("the new code is too far for a jump".to_owned());
        for hooked in std::mem::take(&mut self.hooked) {
            let function = LiveAddr(symbols[hooked.replacement as usize]);
            let target = LiveAddr(hooked.stub.unwrap_or(function.0));
            if hooked.stub.is_some() {
                let stub = hooked.choice.landing_stub(target, function);
                self.write(target.0, &stub.ok_or_else(far)?)?;
            }
            let writes = hooked.choice.writes(LiveAddr(hooked.entry), target);
            let writes = writes.ok_or_else(far)?.into_iter();
            self.hooks.extend(writes.map(|(at, bytes)| (at.0, bytes)));
        }
        Ok(())
    }

    /// Writes bytes at an address of the new segments.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), KeptError> {
        let from = at.checked_sub(self.segments[0].start);
        let from = from.and_then(|from| usize::try_from(from).ok());
        let place = from.and_then(|from| self.bytes.get_mut(from..));
        match place.and_then(|place| place.get_mut(..bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            None => unfit("the parts of the patch do not fit their places"),
        }
    }

    /// Bytes at an address of the new segments.
    pub(super) fn read(&self, range: Range<u64>) -> &[u8] {
        let place = |at: u64| usize::try_from(at.checked_sub(self.segments[0].start)?).ok();
        let places = place(range.start).zip(place(range.end));
        let bytes = places.and_then(|(from, to)| self.bytes.get(from..to));
        bytes.unwrap_or_default()
    }

    /// The segments that hold something.
    pub(super) fn segments(&self) -> Vec<Segment> {
        let flags = [READ, READ | EXECUTE, READ | WRITE];
        let all = self.segments.iter().zip(flags);
        all.filter(|(range, _)| !range.is_empty())
            .map(|(range, flags)| Segment {
                range: range.clone(),
                flags,
            })
            .collect()
    }
}

/// Room for a table of words.
fn table(at: &mut u64, size: u64) -> Range<u64> {
    let start = at.next_multiple_of(8);
    if size == 0 {
        return start..start;
    }
    *at = start + size;
    start..*at
}

/// The functions whose entries lead to new ones.
fn hooked(patch: &Patch) -> Result<Vec<Hooked>, KeptError> {
    let mut taken = Vec::new();
    let redirects = patch.redirects.iter().filter(|redirect| redirect.hooked);
    let one = |redirect: &Redirect| {
        let entry = patch.target.base.0.checked_add(redirect.at.0);
        let Some(entry) = entry else {
            return unfit("a function lies behind the address space");
        };
        let choice = choose(&redirect.entry, LiveAddr(entry), redirect.size, &mut taken);
        let choice = choice.map_err(|why| {
            KeptError::Unfit(format!("{} cannot be hooked: {why}", redirect.function))
        })?;
        Ok(Hooked {
            entry,
            replacement: redirect.replacement,
            choice,
            stub: None,
        })
    };
    redirects.map(one).collect()
}
