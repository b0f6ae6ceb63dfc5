//! The module's sections on their way into the base.

use std::collections::BTreeSet;

use invivo_image::Rva;
use invivo_image::pe::{
    BaseRelocation, BaseRelocationKind, PeImage, PeMachine, PeSection, directory, section_flags,
};

use super::{CODE, ColdError, refuse};
use crate::hotp1::{FixupKind, LegacyPatch, Places, is_section};
use crate::section::{self, Section};

/// Windows maps whole pages.
const PAGE: u64 = 0x1000;

/// Pages of the module that belong together.
#[derive(Debug)]
struct Part {
    /// Where they begin in the module.
    at: u64,
    /// Bytes in memory.
    size: u64,
    /// Those of them that are in the file.
    bytes: Vec<u8>,
    flags: u32,
    name: [u8; 8],
}

/// All of them, in order of place.
#[derive(Debug)]
pub(super) struct Parts {
    /// How far a place of the new file is from the same place in the module.
    pub(super) distance: u32,
    parts: Vec<Part>,
    narrow: bool,
}

impl Parts {
    /// The sections of `module` that its code may need.
    pub(super) fn of(base: &PeImage, module: &PeImage) -> Result<Parts, ColdError> {
        let mut parts = Vec::new();
        let slots = slot_pages(module);
        for section in module.sections.iter().filter(|s| is_carried(module, s)) {
            pages(module, section, &slots, &mut parts)?;
        }
        let code = parts.iter().any(|part: &Part| part.name == CODE);
        let Some(first) = parts.first().map(|part| part.at).filter(|_| code) else {
            return refuse("the patch module has no code");
        };
        // No gap: the loader wants each section right behind the one before it.
        let starts: Vec<u64> = parts.iter().map(|part| part.at).collect();
        for (part, next) in parts.iter_mut().zip(&starts[1..]) {
            part.size = next - part.at;
        }
        let distance = section::next(base).checked_sub(first);
        let distance = distance.and_then(|distance| u32::try_from(distance).ok());
        let Some(distance) = distance else {
            return refuse("the patch module's sections begin behind the end of the base");
        };
        let narrow = base.machine == PeMachine::I386;
        Ok(Parts {
            distance,
            parts,
            narrow,
        })
    }

    /// The sections to add.
    pub(super) fn sections(&self) -> Vec<Section> {
        let parts = self.parts.iter();
        let section = |part: &Part| Section {
            name: part.name,
            flags: part.flags,
            contents: part.bytes.clone(),
            // It ends before 4 GiB, or `append` refuses all of it.
            size: u32::try_from(part.size).unwrap_or(u32::MAX),
        };
        parts.map(section).collect()
    }

    /// Where in the new file the first section behind all of them is.
    pub(super) fn end(&self, base: &PeImage) -> u64 {
        let end = self.parts.last().map_or(0, |part| part.at + part.size);
        (end + u64::from(self.distance)).next_multiple_of(base.section_alignment.into())
    }

    /// `size` bytes at `at`, a place of the module; an error if they are not carried.
    pub(super) fn place(&mut self, at: Rva, size: usize) -> Result<&mut [u8], ColdError> {
        let after = self.parts.partition_point(|part| part.at <= at.0);
        let part = after.checked_sub(1).and_then(|n| self.parts.get_mut(n));
        let bytes = part.and_then(|part| {
            let from = usize::try_from(at.0 - part.at).ok()?;
            part.bytes.get_mut(from..from.checked_add(size)?)
        });
        bytes.ok_or_else(|| {
            ColdError::Image(format!("{at} of the patch module is not in its sections"))
        })
    }

    /// True if a place of the module comes into the new file.
    pub(super) fn holds(&self, at: Rva) -> bool {
        let after = self.parts.partition_point(|part| part.at <= at.0);
        let part = after
            .checked_sub(1)
            .and_then(|number| self.parts.get(number));
        part.is_some_and(|part| at.0 < part.at + part.size)
    }

    /// `Ok` if what the imports need at `at` comes into the new file.
    fn carried(&self, at: Rva) -> Result<(), ColdError> {
        if self.holds(at) {
            return Ok(());
        }
        refuse(format!(
            "the patch module's imports need {at} of it, which does not come into the new file"
        ))
    }

    /// Adds the distance to a place that is written as one of the module.
    pub(super) fn shift(&mut self, at: Rva) -> Result<(), ColdError> {
        let distance = self.distance;
        let word = self.place(at, 4)?;
        let old = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let Some(new) = old.checked_add(distance) else {
            return refuse(format!("{at} of the patch module names no place of it"));
        };
        word.copy_from_slice(&new.to_le_bytes());
        Ok(())
    }

    /// Makes the module's own addresses right; gives where they are now.
    pub(super) fn relocate(
        &mut self,
        module: &PeImage,
        places: &Places,
    ) -> Result<Vec<BaseRelocation>, ColdError> {
        let moved = places.patch.wrapping_sub(module.image_base);
        let mut all = Vec::new();
        for relocation in &module.relocations {
            let width = match relocation.kind {
                BaseRelocationKind::Address32 => 4,
                BaseRelocationKind::Address64 => 8,
                BaseRelocationKind::Other(number) => {
                    return refuse(format!(
                        "the patch module has a base relocation of type {number}"
                    ));
                }
            };
            if !self.holds(relocation.at) {
                continue;
            }
            let word = self.place(relocation.at, width)?;
            let mut value = [0; 8];
            value[..width].copy_from_slice(word);
            let value = u64::from_le_bytes(value).wrapping_add(moved).to_le_bytes();
            word.copy_from_slice(&value[..width]);
            all.push(self.moved(*relocation));
        }
        Ok(all)
    }

    /// Makes the words right that depend on where the target is; gives those that are addresses.
    pub(super) fn fix_up(
        &mut self,
        model: &LegacyPatch,
        places: &Places,
    ) -> Result<Vec<BaseRelocation>, ColdError> {
        let mut all = Vec::new();
        for region in &model.fixups {
            let kinds = region.fixups.iter();
            for fixup in kinds.filter(|fixup| fixup.kind != FixupKind::None) {
                let at = Rva(u64::from(region.page) << 12 | u64::from(fixup.offset));
                let word = self.place(at, fixup.kind.width() as usize)?;
                let value = model.fixed_up(fixup.kind, word, places);
                let Some(value) = value else {
                    return refuse(format!("the word at {at} of the patch module is too short"));
                };
                word.copy_from_slice(&value);
                let kind = match fixup.kind {
                    FixupKind::Va32 if self.narrow => BaseRelocationKind::Address32,
                    FixupKind::Va32 => {
                        return refuse(format!(
                            "the word at {at} of the patch module has 32 bits, addresses have 64"
                        ));
                    }
                    FixupKind::Va64 => BaseRelocationKind::Address64,
                    // Both images move together.
                    _ => continue,
                };
                all.push(self.moved(BaseRelocation { at, kind }));
            }
        }
        Ok(all)
    }

    fn moved(&self, relocation: BaseRelocation) -> BaseRelocation {
        BaseRelocation {
            at: Rva(relocation.at.0 + u64::from(self.distance)),
            ..relocation
        }
    }

    /// Makes the places right that import tables lead to.
    pub(super) fn lead_imports(&mut self, module: &PeImage) -> Result<(), ColdError> {
        let width = u64::from(module.machine.pointer_size());
        let thunks = module.imports.iter().flat_map(|library| &library.thunks);
        for thunk in thunks {
            self.carried(thunk.slot)?;
        }
        let mut done = BTreeSet::new();
        for descriptor in super::tables::descriptors(module) {
            let [names, _, _, name, slots] = descriptor;
            self.carried(Rva(name.into()))?;
            for table in [names, slots].into_iter().filter(|table| *table != 0) {
                for number in 0_u64.. {
                    let at = Rva(u64::from(table) + number * width);
                    self.carried(at)?;
                    let Some(value) = module.pointer(at).filter(|value| *value != 0) else {
                        break;
                    };
                    // By number: no name is there.
                    let by_number = value >> (width * 8 - 1) != 0;
                    if !by_number && done.insert(at) {
                        self.carried(Rva(value))?;
                        self.shift(at)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// True unless it is about the module as a file of its own.
fn is_carried(module: &PeImage, section: &PeSection) -> bool {
    let whole = |index: usize| {
        let found = module.directory(index);
        found.is_some_and(|found| found.at == section.range.start)
    };
    const RESOURCE: usize = 2;
    let table = !section.is_executable()
        && !section.is_writable()
        && (section.name == ".reloc" && whole(directory::BASE_RELOCATION)
            || section.name == ".pdata" && whole(directory::EXCEPTION)
            || section.name == ".rsrc" && whole(RESOURCE));
    !table && !is_section(&section.name) && section.range.start < section.range.end
}

/// Pages with slots that the loader fills.
fn slot_pages(module: &PeImage) -> BTreeSet<u64> {
    let width = u64::from(module.machine.pointer_size());
    let thunks = module.imports.iter().flat_map(|library| &library.thunks);
    let pages = thunks.flat_map(|thunk| [thunk.slot.0, thunk.slot.0 + width - 1]);
    pages.map(|at| at / PAGE).collect()
}

/// The pages of a section: those with slots can be written, since the loader of then made only
/// those writable that the base's own directory names.
fn pages(
    module: &PeImage,
    section: &PeSection,
    slots: &BTreeSet<u64>,
    parts: &mut Vec<Part>,
) -> Result<(), ColdError> {
    let (start, end) = (section.range.start.0, section.range.end.0);
    let held = section.file_size().min(end - start);
    let Some(bytes) = module.bytes(section.range.start, held) else {
        return refuse(format!("section {} is not in the file", section.name));
    };
    let align = u64::from(module.section_alignment);
    let dropped = section_flags::DISCARDABLE | section_flags::SHARED;
    if section.flags & section_flags::SHARED != 0 {
        return refuse(format!("section {} is one for all processes", section.name));
    }
    let flags = section.flags & !dropped;
    let is_slots = |at: u64| {
        let block = at / PAGE..(at + align) / PAGE;
        !section.is_writable() && slots.range(block).next().is_some()
    };
    let mut at = start;
    while at < end {
        let special = is_slots(at);
        let mut to = at + align;
        // The rest of the section is alike, unless slots begin or end in it.
        let next = slots.range(to / PAGE..).next();
        if !special && next.is_none_or(|page| page * PAGE >= end) {
            to = end;
        }
        while to < end && is_slots(to) == special {
            to += align;
        }
        let to = to.min(end);
        let part = |at: u64| usize::try_from((at - start).min(held)).unwrap_or(0);
        let (name, flags) = match special {
            true => (*b".idat_CP", flags | section_flags::WRITE),
            false if section.is_executable() => (CODE, flags | section_flags::CODE),
            false if section.is_writable() => (*b".data_CP", flags),
            false => (*b".rdat_CP", flags),
        };
        parts.push(Part {
            at,
            size: to - at,
            bytes: bytes[part(at)..part(to)].to_vec(),
            flags,
            name,
        });
        at = to;
    }
    Ok(())
}
