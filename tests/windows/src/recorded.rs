//! PDB files as a linker for Visual C++ writes them: with the records of which functions were compiled
//! for hot patching (`S_HOTPATCHFUNC`). LLVM's linker does not know them, and writes records that say
//! nothing (`S_SKIP`) over them. These have the same size, so that the records can be put back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use invivo_image::pe::HotPatchObject;
use ms_pdb::msf::Msf;
use ms_pdb::syms::{SymIter, SymKind};
use ms_pdb::types::{TypeData, TypeIndex};
use ms_pdb::{Pdb, RandomAccessFile};

/// Puts the records of these object files back into the PDB file, and says how many.
///
/// # Errors
/// When one cannot be read or written, or there is no room for a record.
pub fn restore(pdb: &Path, objects: &[PathBuf]) -> Result<usize> {
    let mut writes = Vec::new();
    let file = Pdb::open(pdb)?;
    let items = items(&file)?;
    for path in objects {
        let object = HotPatchObject::parse(&std::fs::read(path)?)?;
        let records = object.functions.iter();
        let records: Vec<_> = records.map(|name| record(&object, name, &items)).collect();
        let name = path.file_name().context("a name")?.to_string_lossy();
        let found = places(&file, &name, &records)?;
        ensure!(
            found.len() == records.len(),
            "no room for a record of {name}"
        );
        writes.extend(found.into_iter().zip(records));
    }
    drop(file);
    let mut file = Msf::modify(pdb)?;
    for ((stream, at), record) in &writes {
        file.write_stream(*stream)?.write_all_at_mut(record, *at)?;
    }
    file.commit()?;
    Ok(writes.len())
}

/// Functions that the PDB file numbers, without the names of what they are in.
fn items(file: &Pdb<RandomAccessFile>) -> Result<HashMap<String, u32>> {
    let stream = file.read_ipi_stream()?;
    let mut found = HashMap::new();
    for at in stream.type_index_begin().0..stream.type_index_end().0 {
        let name = match stream.record(TypeIndex(at))?.parse() {
            Ok(TypeData::FuncId(function)) => function.name.to_string(),
            Ok(TypeData::MFuncId(function)) => function.name.to_string(),
            _ => continue,
        };
        found.entry(last(&name).to_owned()).or_insert(at);
    }
    Ok(found)
}

fn last(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// The record for the function that the linker calls `name`.
fn record(object: &HotPatchObject, name: &str, items: &HashMap<String, u32>) -> Vec<u8> {
    const KIND: u16 = 0x1169;
    let mut called = object.linkage.iter();
    let called = called.find_map(|(called, names)| names.contains(name).then_some(called));
    let item = called.and_then(|called| items.get(last(called)));
    let mut record = KIND.to_le_bytes().to_vec();
    record.extend(item.copied().unwrap_or(0).to_le_bytes());
    record.extend(name.as_bytes());
    record.push(0);
    // With the two bytes of its length it is as long as a multiple of four.
    record.resize((record.len() + 2).next_multiple_of(4) - 2, 0);
    let length = u16::try_from(record.len()).unwrap_or(u16::MAX);
    [length.to_le_bytes().to_vec(), record].concat()
}

/// Where there is room for them in what the linker made of this object file, in their order: streams,
/// and bytes from their starts.
fn places(
    file: &Pdb<RandomAccessFile>,
    object: &str,
    records: &[Vec<u8>],
) -> Result<Vec<(u32, u64)>> {
    /// Bytes of the signature before the first record, and of each record's length and kind.
    const SIGNATURE: u64 = 4;
    const HEAD: usize = 4;
    let mut found = Vec::new();
    for module in file.read_modules()?.iter() {
        let path = module.module_name().to_string();
        let is_it = path.rsplit(['/', '\\']).next() == Some(object);
        let Some(stream) = module.stream().filter(|_| is_it) else {
            continue;
        };
        let words = file.read_module_symbols(&module)?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut at = SIGNATURE;
        for symbol in SymIter::for_module_syms(&bytes) {
            let size = HEAD + symbol.data.len();
            let fits = records
                .get(found.len())
                .is_some_and(|one| one.len() == size);
            if symbol.kind == SymKind::S_SKIP && fits {
                found.push((stream, at));
            }
            at += size as u64;
        }
    }
    Ok(found)
}
