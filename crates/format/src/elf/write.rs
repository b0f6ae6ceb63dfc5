//! Model → file.

use invivo_patch::{Patch, RelocationKind, SectionKind, SymbolPlace};
use object::write::{Object, Relocation, SectionId, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};
use sha2::{Digest as _, Sha256};

use super::manifest::{Manifest, VERSION};
use super::{MANIFEST, PatchError};
use crate::digest;

/// Writes a patch.
///
/// # Errors
/// When the model breaks one of its invariants.
pub fn write(patch: &Patch) -> Result<Vec<u8>, PatchError> {
    let broken = |text: String| PatchError::Broken(text);
    patch
        .validate()
        .map_err(|error| broken(error.to_string()))?;
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let sections = add_sections(&mut object, patch);
    let bindings = patch.bindings().map(|bound| bound.at).collect();
    let mut symbols = Vec::new();
    for symbol in &patch.contents.symbols {
        let (section, value, size, code) = match symbol.place {
            SymbolPlace::Base(_) | SymbolPlace::Import(_) => {
                (SymbolSection::Undefined, 0, 0, false)
            }
            SymbolPlace::Patch {
                section,
                offset,
                size,
            } => {
                let code = patch.contents.sections[section as usize].kind == SectionKind::Text;
                (
                    SymbolSection::Section(sections[section as usize]),
                    offset,
                    size,
                    code,
                )
            }
        };
        let own = section != SymbolSection::Undefined;
        let kind = if code {
            SymbolKind::Text
        } else {
            SymbolKind::Data
        };
        symbols.push(object.add_symbol(Symbol {
            name: symbol.name.clone().into_bytes(),
            value,
            size,
            kind: if own { kind } else { SymbolKind::Unknown },
            scope: if own {
                SymbolScope::Compilation
            } else {
                SymbolScope::Unknown
            },
            weak: false,
            section,
            flags: SymbolFlags::None,
        }));
    }
    for (section, id) in patch.contents.sections.iter().zip(&sections) {
        for relocation in &section.relocations {
            let relocation = Relocation {
                offset: relocation.offset,
                symbol: symbols[relocation.symbol as usize],
                addend: relocation.addend,
                flags: RelocationFlags::Elf {
                    r_type: elf_type(relocation.kind),
                },
            };
            object
                .add_relocation(*id, relocation)
                .map_err(|error| broken(error.to_string()))?;
        }
    }
    let manifest = Manifest {
        version: VERSION,
        identity: patch.identity.clone(),
        target: patch.target.clone(),
        order: patch.order.clone(),
        judgements: patch.judgements.clone(),
        redirects: patch.redirects.clone(),
        checks: patch.checks.clone(),
        callouts: patch.callouts.clone(),
        bindings,
        imports: patch
            .imports()
            .map(|(_, version)| version.cloned())
            .collect(),
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|error| broken(error.to_string()))?;
    for (name, bytes) in [
        (MANIFEST, &manifest[..]),
        (digest::NAME, &[0; digest::SIZE]),
    ] {
        let kind = object::SectionKind::Other;
        let id = object.add_section(Vec::new(), name.as_bytes().to_vec(), kind);
        object.append_section_data(id, bytes, 1);
    }
    let mut file = object.write().map_err(|error| broken(error.to_string()))?;
    seal(&mut file)?;
    Ok(file)
}

fn add_sections(object: &mut Object<'_>, patch: &Patch) -> Vec<SectionId> {
    let sections = patch.contents.sections.iter();
    sections
        .map(|section| {
            let (kind, flags) = match section.kind {
                SectionKind::Text => (
                    object::SectionKind::Text,
                    elf::SHF_ALLOC | elf::SHF_EXECINSTR,
                ),
                SectionKind::ReadOnly | SectionKind::Unwind => {
                    (object::SectionKind::ReadOnlyData, elf::SHF_ALLOC)
                }
                SectionKind::Data => (object::SectionKind::Data, elf::SHF_ALLOC | elf::SHF_WRITE),
            };
            let id = object.add_section(Vec::new(), section.name.clone().into_bytes(), kind);
            object.section_mut(id).flags = SectionFlags::Elf {
                sh_type: elf::SHT_PROGBITS,
                sh_flags: flags,
            };
            object.append_section_data(id, &section.bytes, section.align);
            id
        })
        .collect()
}

fn elf_type(kind: RelocationKind) -> elf::RelocationType {
    match kind {
        RelocationKind::Relative32 => elf::R_X86_64_PC32,
        RelocationKind::Absolute64 => elf::R_X86_64_64,
        RelocationKind::Absolute32 => elf::R_X86_64_32,
        RelocationKind::Absolute32Signed => elf::R_X86_64_32S,
    }
}

/// Fills in the digest.
fn seal(file: &mut [u8]) -> Result<(), PatchError> {
    let digest = Sha256::digest(&*file);
    let place = super::read::digest_range(file)?;
    file[place].copy_from_slice(&digest);
    Ok(())
}
