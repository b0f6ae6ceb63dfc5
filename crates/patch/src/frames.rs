//! Unwind data of the copied code, so that exceptions, panics and debuggers
//! pass through it: `.eh_frame` records and the language's tables (LSDA).

use std::collections::BTreeMap;

use invivo_compare::Rule;
use invivo_image::{EntityId, Image, Lsda, SectionKind as ImageSection, encoding};

use crate::model::{Relocation, RelocationKind, Section, SectionKind, SymbolPlace};
use crate::planner::{Placed, Planner, index};

/// The `.eh_frame` of everything that was copied.
pub(crate) fn section(planner: &mut Planner<'_, '_>) -> Option<Section> {
    let image = planner.c.fixed;
    // Compiled without unwind data, as kernels and hypervisors are.
    if image.is_of_objects() && image.unwind.fdes.is_empty() {
        return None;
    }
    let mut writer = Writer::default();
    let mut parts: Vec<EntityId> = planner
        .placed
        .keys()
        .filter_map(|key| match key {
            Placed::Copy(id) => Some(*id),
            _ => None,
        })
        .filter(|id| {
            let at = image.entity(*id).addr;
            image
                .section_at(at)
                .is_some_and(|s| s.kind == ImageSection::Text)
        })
        .collect();
    parts.sort();
    for part in parts {
        if let Err(text) = writer.add(planner, part) {
            planner.refuse(Rule::Unwind, part, text);
        }
    }
    let stubs = planner.placed.iter();
    let mut stubs: Vec<u32> = stubs
        .filter(|(key, _)| matches!(key, Placed::Stub(_)))
        .map(|(_, symbol)| *symbol)
        .collect();
    stubs.sort_unstable();
    writer.add_stubs(planner, &stubs);
    writer.finish()
}

/// `DW_CFA_def_cfa rsp, 8` and `DW_CFA_offset rip, 1`: how every function begins.
const AT_ENTRY: [u8; 5] = [0x0c, 7, 8, 0x90, 1];
/// Version 1, augmentation `zR`, code in bytes, data in units of -8, return address in
/// column 16, one byte of augmentation.
const PLAIN: [u8; 8] = [1, b'z', b'R', 0, 1, 0x78, 16, 1];

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    relocations: Vec<Relocation>,
    /// Index of the fixed image's common entry → where its copy starts.
    cies: BTreeMap<usize, usize>,
}

impl Writer {
    fn add(&mut self, planner: &mut Planner<'_, '_>, part: EntityId) -> Result<(), String> {
        let image = planner.c.fixed;
        let entity = image.entity(part);
        let fde = image
            .unwind
            .fde_at(entity.addr)
            .ok_or("it has no unwind data")?;
        if fde.range.start != entity.addr || fde.range.end < entity.end() {
            return Err("its unwind data describe other bounds".to_owned());
        }
        let cie = self.cie(planner, fde.cie)?;
        let start = self.bytes.len();
        self.word(0);
        self.word(u32::try_from(start + 4 - cie).map_err(|e| e.to_string())?);
        let symbol = planner.copied(part);
        self.pointer(symbol, 0);
        self.word(u32::try_from(entity.size).map_err(|e| e.to_string())?);
        if image.unwind.cies[fde.cie].has_lsda {
            self.bytes.push(4);
            match fde.lsda {
                Some(at) => {
                    let lsda = copy_lsda(planner, part, &Lsda::parse(image, at)?)?;
                    self.pointer(lsda, 0);
                }
                None => self.word(0),
            }
        } else {
            self.bytes.push(0);
        }
        self.end(image, start, fde.instructions.clone())
    }

    fn cie(&mut self, planner: &mut Planner<'_, '_>, number: usize) -> Result<usize, String> {
        if let Some(at) = self.cies.get(&number) {
            return Ok(*at);
        }
        let image = planner.c.fixed;
        let cie = &image.unwind.cies[number];
        let start = self.bytes.len();
        self.word(0);
        self.word(0);
        self.bytes.push(1);
        self.bytes.push(b'z');
        let flags = [
            (cie.personality.is_some(), b'P'),
            (cie.has_lsda, b'L'),
            (true, b'R'),
            (cie.signal, b'S'),
        ];
        self.bytes.extend(
            flags
                .iter()
                .filter(|(present, _)| *present)
                .map(|(_, letter)| *letter),
        );
        self.bytes.push(0);
        let (code, data) = (cie.code_align, cie.data_align);
        // LEB128 of small numbers is one byte; compilers use 1 and −8.
        let (0..=0x3f, -0x40..=0x3f, 0..=0x7f) = (code, data, cie.return_register) else {
            return Err("its unwind data use unusual units".to_owned());
        };
        self.bytes
            .push(u8::try_from(code).map_err(|e| e.to_string())?);
        self.bytes.push(data.to_le_bytes()[0] & 0x7f);
        self.bytes
            .push(u8::try_from(cie.return_register).map_err(|e| e.to_string())?);
        let size = if cie.personality.is_some() { 5 } else { 0 } + u8::from(cie.has_lsda) + 1;
        self.bytes.push(size);
        if let Some((at, indirect)) = cie.personality {
            self.bytes
                .push(encoding::PCREL_SDATA4 | if indirect { encoding::INDIRECT } else { 0 });
            let (symbol, addend) = planner.bind_pointer(at)?;
            self.pointer(symbol, addend);
        }
        if cie.has_lsda {
            self.bytes.push(encoding::PCREL_SDATA4);
        }
        self.bytes.push(encoding::PCREL_SDATA4);
        self.end(image, start, cie.instructions.clone())?;
        self.cies.insert(number, start);
        Ok(start)
    }

    /// Stubs jump away as they were entered: nothing is ever pushed in one.
    fn add_stubs(&mut self, planner: &Planner<'_, '_>, stubs: &[u32]) {
        let cie = self.bytes.len();
        if !stubs.is_empty() {
            self.word(0);
            self.word(0);
            self.bytes.extend(PLAIN);
            self.bytes.push(encoding::PCREL_SDATA4);
            self.bytes.extend(AT_ENTRY);
            self.close(cie);
        }
        for stub in stubs {
            let start = self.bytes.len();
            self.word(0);
            self.word(index(start + 4 - cie));
            self.pointer(*stub, 0);
            let SymbolPlace::Patch { size, .. } = planner.contents.symbols[*stub as usize].place
            else {
                continue;
            };
            self.word(u32::try_from(size).unwrap_or(u32::MAX));
            self.bytes.push(0);
            self.close(start);
        }
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    fn pointer(&mut self, symbol: u32, addend: i64) {
        let offset = self.bytes.len() as u64;
        self.relocations.push(Relocation {
            offset,
            kind: RelocationKind::Relative32,
            symbol,
            addend,
        });
        self.word(0);
    }

    /// Adds the instructions of a record and closes it.
    fn end(
        &mut self,
        image: &Image,
        start: usize,
        instructions: std::ops::Range<usize>,
    ) -> Result<(), String> {
        let section = image.section_named(".eh_frame").ok_or("no .eh_frame")?;
        let instructions = image
            .section_bytes(section)
            .get(instructions)
            .ok_or("broken .eh_frame")?;
        self.bytes.extend(instructions);
        self.close(start);
        Ok(())
    }

    /// Pads a record with `DW_CFA_nop`, and fills in its length.
    fn close(&mut self, start: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let length = index(self.bytes.len() - start - 4);
        self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn finish(mut self) -> Option<Section> {
        if self.bytes.is_empty() {
            return None;
        }
        // A zero length ends the table for whoever registers it.
        self.word(0);
        Some(Section {
            name: ".eh_frame".to_owned(),
            kind: SectionKind::Unwind,
            align: 8,
            bytes: self.bytes,
            relocations: self.relocations,
        })
    }
}

fn copy_lsda(planner: &mut Planner<'_, '_>, part: EntityId, lsda: &Lsda) -> Result<u32, String> {
    if !lsda.elsewhere.is_empty() {
        return Err("its landing pads are not told by their distance".to_owned());
    }
    let image = planner.c.fixed;
    let start = lsda.range.start;
    let size = lsda.range.end.0 - start.0;
    let bytes = image
        .bytes(start, size)
        .ok_or("its LSDA has no bytes")?
        .to_vec();
    let mut relocations = Vec::new();
    for (place, encoding, target) in &lsda.types {
        let (symbol, addend) = planner.bind_pointer(*target)?;
        let kind = match encoding & 0x7f {
            0x1b => RelocationKind::Relative32,
            0x03 => RelocationKind::Absolute32,
            0x00 => RelocationKind::Absolute64,
            other => return Err(format!("its LSDA has types in encoding {other:#x}")),
        };
        relocations.push(Relocation {
            offset: place.0 - start.0,
            kind,
            symbol,
            addend,
        });
    }
    let name = format!(".gcc_except_table.{}", image.entity(part).name());
    let section = Section {
        name,
        kind: SectionKind::ReadOnly,
        align: 4,
        bytes,
        relocations,
    };
    planner.contents.sections.push(section);
    let section = index(planner.contents.sections.len() - 1);
    Ok(planner.add_symbol(
        "",
        SymbolPlace::Patch {
            section,
            offset: 0,
            size,
        },
    ))
}
