//! `.livepatch.funcs`.

use object::{SectionKind, elf};

use super::super::function::{Function, New, Old, StructureVersion};
use super::super::model::Payload;
use super::super::{FUNCTIONS, LivepatchError, NAMES};
use super::Writer;

impl Writer<'_> {
    pub(super) fn functions(&mut self, payload: &Payload) -> Result<(), LivepatchError> {
        if payload.functions.is_empty() {
            return Ok(());
        }
        let mut names = Vec::new();
        let mut table = Vec::new();
        let mut name_places = Vec::new();
        for function in &payload.functions {
            name_places.push(i64::try_from(names.len()).unwrap_or(i64::MAX));
            names.extend_from_slice(function.name.as_bytes());
            names.push(0);
            table.extend_from_slice(&structure(function, payload.version));
        }
        let flags = elf::SHF_ALLOC | elf::SHF_WRITE;
        let id = self.new_section(FUNCTIONS, SectionKind::Data, elf::SHT_PROGBITS, flags);
        self.object.append_section_data(id, &table, 8);
        let names = self.plain(NAMES, &names, 1, elf::SHT_PROGBITS);
        let names = self.object.section_symbol(names);
        let mut at = 0;
        for (function, place) in payload.functions.iter().zip(name_places) {
            self.file_relocation(id, at, elf::R_X86_64_64, names, place)?;
            if let New::Code { code, .. } = function.new {
                self.relocation(id, at + 8, elf::R_X86_64_64, code)?;
            }
            if let Old::Symbol(old) = function.old {
                self.relocation(id, at + 16, elf::R_X86_64_64, old)?;
            }
            at += payload.version.size() as u64;
        }
        Ok(())
    }
}

/// `struct livepatch_func` without what relocations fill in.
fn structure(function: &Function, version: StructureVersion) -> Vec<u8> {
    let mut bytes = vec![0; version.size()];
    let address = match function.old {
        Old::Address(address) => address,
        Old::Name | Old::Symbol(_) => 0,
    };
    let new_size = match function.new {
        New::Code { size, .. } | New::Nop { size } => size,
    };
    bytes[16..24].copy_from_slice(&address.to_le_bytes());
    bytes[24..28].copy_from_slice(&new_size.to_le_bytes());
    bytes[28..32].copy_from_slice(&function.old_size.to_le_bytes());
    bytes[32] = version.number();
    if let Some(expectation) = &function.expectation {
        let expected = expectation.bytes();
        bytes[72] = 1 | (expected.len() as u8) << 1;
        bytes[73..73 + expected.len()].copy_from_slice(expected);
    }
    bytes
}
