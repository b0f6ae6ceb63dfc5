//! Model → file. One model is always written as the same bytes.

use invivo_image::BuildId;
use object::write::{Object, Relocation as FileRelocation, SectionId, Symbol as FileSymbol};
use object::write::{SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind,
    SymbolFlags, SymbolKind, SymbolScope, elf,
};
use sha2::{Digest as _, Sha256};

use super::build_id::{self, note};
use super::file::File;
use super::model::{
    Access, Contents, Moment, Payload, Reference, RelocationKind, Section, SymbolPlace,
};
use super::{DEPENDS, LISTED_ID, LivepatchError, MODINFO, OWN_ID, Rule, XEN_DEPENDS};

mod functions;

/// A payload as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub file: Vec<u8>,
    /// The payload's own build id, made from all that it holds: what is built upon it depends on this.
    pub id: BuildId,
}

/// Writes a payload.
///
/// The file has what a loader needs and nothing else: `.livepatch.funcs` is writable, every
/// section has an alignment, none is empty, and names are only those of the model.
///
/// # Errors
/// When the model has what no payload may have, with the rule that it breaks.
pub fn write(payload: &Payload) -> Result<Written, LivepatchError> {
    super::model_check::check(payload)?;
    let mut out = Writer {
        object: Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little),
        symbols: Vec::new(),
    };
    let sections: Vec<SectionId> = payload.sections.iter().map(|s| out.section(s)).collect();
    out.add_symbols(payload, &sections);
    for (section, id) in payload.sections.iter().zip(&sections) {
        for relocation in &section.relocations {
            let kind = match relocation.kind {
                RelocationKind::Absolute64 => elf::R_X86_64_64,
                RelocationKind::Relative32 => elf::R_X86_64_PC32,
                RelocationKind::Call32 => elf::R_X86_64_PLT32,
            };
            out.relocation(*id, relocation.offset, kind, relocation.to)?;
        }
    }
    out.functions(payload)?;
    out.hooks(payload)?;
    if !payload.modinfo.is_empty() {
        let texts: String = payload
            .modinfo
            .iter()
            .map(|text| format!("{text}\0"))
            .collect();
        out.plain(MODINFO, texts.as_bytes(), 1, elf::SHT_PROGBITS);
    }
    out.plain(DEPENDS, &note(&payload.depends), 4, elf::SHT_NOTE);
    if let Some(xen) = &payload.xen_depends {
        out.plain(XEN_DEPENDS, &note(xen), 4, elf::SHT_NOTE);
    }
    let blank = note(&BuildId(vec![0; build_id::SIZE]));
    out.plain(OWN_ID, &blank, 4, elf::SHT_NOTE);
    let broken = |error: object::write::Error| LivepatchError::new(Rule::X05, error.to_string());
    seal(out.object.write().map_err(broken)?)
}

/// Writes a payload with one more text in its `.modinfo`, which begins with [`LISTED_ID`] and is
/// of this payload alone. Xen lists such texts of what is loaded, and does not list build ids.
///
/// # Errors
/// As for [`write()`].
#[expect(clippy::disallowed_methods, reason = "this is no test")]
pub fn write_listed(payload: &Payload) -> Result<Written, LivepatchError> {
    let plain = write(payload)?;
    let mut listed = payload.clone();
    listed.modinfo.push(format!("{LISTED_ID}{}", plain.id));
    write(&listed)
}

/// Fills in the build id.
fn seal(mut file: Vec<u8>) -> Result<Written, LivepatchError> {
    let id = Sha256::digest(&file)[..build_id::SIZE].to_vec();
    let parts = File::parse(&file)?;
    let note = parts
        .section(OWN_ID)
        .map_or(0, |(_, section)| section.offset);
    let at = usize::try_from(note)
        .unwrap_or(usize::MAX)
        .saturating_add(build_id::HEADER + 4);
    let place = file
        .get_mut(at..at.saturating_add(build_id::SIZE))
        .ok_or_else(|| LivepatchError::new(Rule::X25, "there is no place for the build id"))?;
    place.copy_from_slice(&id);
    Ok(Written {
        file,
        id: BuildId(id),
    })
}

struct Writer<'p> {
    object: Object<'p>,
    /// By the numbers of the model.
    symbols: Vec<SymbolId>,
}

impl<'p> Writer<'p> {
    fn section(&mut self, section: &'p Section) -> SectionId {
        let (kind, flags) = match section.access {
            Access::Code => (SectionKind::Text, elf::SHF_ALLOC | elf::SHF_EXECINSTR),
            Access::ReadOnly => (SectionKind::ReadOnlyData, elf::SHF_ALLOC),
            Access::Data => (SectionKind::Data, elf::SHF_ALLOC | elf::SHF_WRITE),
        };
        match &section.contents {
            Contents::Bytes(bytes) => {
                let id = self.new_section(&section.name, kind, elf::SHT_PROGBITS, flags);
                self.object.append_section_data(id, bytes, section.align);
                id
            }
            Contents::Zeros(size) => {
                let kind = SectionKind::UninitializedData;
                let id = self.new_section(&section.name, kind, elf::SHT_NOBITS, flags);
                self.object.append_section_bss(id, *size, section.align);
                id
            }
        }
    }

    fn new_section(
        &mut self,
        name: &str,
        kind: SectionKind,
        sh_type: elf::SectionType,
        sh_flags: elf::SectionFlags,
    ) -> SectionId {
        let id = self
            .object
            .add_section(Vec::new(), name.as_bytes().to_vec(), kind);
        self.object.section_mut(id).flags = SectionFlags::Elf { sh_type, sh_flags };
        id
    }

    /// A loaded section that only the loader reads.
    fn plain(&mut self, name: &str, bytes: &[u8], align: u64, kind: elf::SectionType) -> SectionId {
        let id = self.new_section(name, SectionKind::ReadOnlyData, kind, elf::SHF_ALLOC);
        self.object.append_section_data(id, bytes, align);
        id
    }

    fn add_symbols(&mut self, payload: &Payload, sections: &[SectionId]) {
        for symbol in &payload.symbols {
            let (section, value, size, kind, scope) = match symbol.place {
                SymbolPlace::Xen => (
                    SymbolSection::Undefined,
                    0,
                    0,
                    SymbolKind::Unknown,
                    SymbolScope::Unknown,
                ),
                SymbolPlace::Section {
                    section,
                    offset,
                    size,
                } => {
                    let number = section as usize;
                    let kind = match payload.sections[number].access {
                        Access::Code => SymbolKind::Text,
                        Access::ReadOnly | Access::Data => SymbolKind::Data,
                    };
                    let scope = match symbol.name.is_empty() {
                        true => SymbolScope::Compilation,
                        false => SymbolScope::Dynamic,
                    };
                    (
                        SymbolSection::Section(sections[number]),
                        offset,
                        size,
                        kind,
                        scope,
                    )
                }
            };
            self.symbols.push(self.object.add_symbol(FileSymbol {
                name: symbol.name.clone().into_bytes(),
                value,
                size,
                kind,
                scope,
                weak: false,
                section,
                flags: SymbolFlags::None,
            }));
        }
    }

    fn relocation(
        &mut self,
        section: SectionId,
        offset: u64,
        r_type: elf::RelocationType,
        to: Reference,
    ) -> Result<(), LivepatchError> {
        let symbol = self.symbols[to.symbol as usize];
        self.file_relocation(section, offset, r_type, symbol, to.addend)
    }

    fn file_relocation(
        &mut self,
        section: SectionId,
        offset: u64,
        r_type: elf::RelocationType,
        symbol: SymbolId,
        addend: i64,
    ) -> Result<(), LivepatchError> {
        let relocation = FileRelocation {
            offset,
            symbol,
            addend,
            flags: RelocationFlags::Elf { r_type },
        };
        let added = self.object.add_relocation(section, relocation);
        added.map_err(|error| LivepatchError::new(Rule::X23, error.to_string()))
    }

    fn hooks(&mut self, payload: &Payload) -> Result<(), LivepatchError> {
        for moment in Moment::ALL {
            let hooks: Vec<_> = payload
                .hooks
                .iter()
                .filter(|h| h.moment == moment)
                .collect();
            if hooks.is_empty() {
                continue;
            }
            let id = self.plain(
                moment.section(),
                &vec![0; hooks.len() * 8],
                8,
                elf::SHT_PROGBITS,
            );
            for (hook, at) in hooks.iter().zip((0..).step_by(8)) {
                self.relocation(id, at, elf::R_X86_64_64, hook.code)?;
            }
        }
        Ok(())
    }
}
