//! Tables whose entries belong to code: what the processor may do better
//! (`.altinstructions`), where a trap is a message (`.bug_frames.N`), where a fault is
//! expected (`.ex_table`), which calls become direct ones (`.alt_call_sites`).
//!
//! An entry is found by the code that it points to, and what it points to beyond that (the
//! replacement, the way on after a fault) is a part of the function, as a cold part is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object::elf;

use super::file::{InSection, Relocation};
use super::relocate::{Linked, Value};
use crate::elf::symbols::gather;
use crate::model::{Binding, EntityKind, Image, SectionKind, Symbol, SymbolKind};
use crate::names::part_name;
use crate::{ImageError, LinkAddr};

/// A field of an entry that says where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnexField {
    /// Its offset in the entry, in bytes; it is four bytes long.
    pub offset: u64,
    /// The place that it means.
    pub target: LinkAddr,
    /// The bits of it above the distance: half of a line number.
    pub above: u32,
}

/// An entry of such a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annex {
    /// The section that it is in.
    pub section: Arc<str>,
    /// The code that it is about.
    pub owner: LinkAddr,
    /// Where the entry is; distances count from here in `.bug_frames.N`, from the field in
    /// the others.
    pub at: LinkAddr,
    /// Its bytes, with zeros where its fields are.
    pub bytes: Vec<u8>,
    /// Its fields, in order.
    pub fields: Vec<AnnexField>,
}

impl Annex {
    /// True for an entry of `.altinstructions` that replaces its instructions by none: its
    /// second field then leads to nothing.
    #[must_use]
    pub fn replaces_by_nothing(&self) -> bool {
        &*self.section == ".altinstructions" && self.bytes.get(LENGTH) == Some(&0)
    }
}

/// Where an entry of `.altinstructions` has the length of its replacement, behind `orig_off`,
/// `repl_off`, `cpuid` and `orig_len`.
const LENGTH: usize = 11;

/// True for the name of a table whose entries belong to code.
#[must_use]
pub fn is_annex(section: &str) -> bool {
    entry_size(section).is_some()
}

/// Bytes of an entry of the table called so: as Xen 4.7 and later have them.
fn entry_size(section: &str) -> Option<usize> {
    Some(match section {
        ".altinstructions" => 14,
        ".ex_table" | ".ex_table.pre" => 8,
        ".alt_call_sites" => 4,
        _ if section.starts_with(".bug_frames.") => 8,
        _ => return None,
    })
}

/// Reads the entries, and names what belongs to functions through them.
pub(super) fn read(
    image: &mut Image,
    linked: &Linked<'_, '_, '_>,
    names: Vec<Symbol>,
) -> Result<(), ImageError> {
    gather(image, names.iter().cloned());
    for (number, object) in linked.set.objects.iter().enumerate() {
        for (index, section) in object.sections.iter().enumerate() {
            let loaded = section.as_ref().filter(|s| s.is_loaded());
            let Some(section) = loaded.filter(|_| linked.set.holds(number, index)) else {
                continue;
            };
            if let Some(size) = entry_size(&section.name) {
                entries(image, linked, (number, index), section, size).map_err(|why| {
                    object.fail(format!("the entries of {}: {why}", section.name))
                })?;
            }
        }
    }
    let parts = parts(image);
    if !parts.is_empty() {
        gather(image, names.into_iter().chain(parts));
    }
    // Entries about code in a replacement belong to the function, too; the order is that of
    // the code.
    image.annexes.sort_by_key(|annex| (annex.owner, annex.at));
    Ok(())
}

fn entries(
    image: &mut Image,
    linked: &Linked<'_, '_, '_>,
    at: (usize, usize),
    section: &InSection<'_>,
    size: usize,
) -> Result<(), String> {
    let start = *linked.layout.starts.get(&at).ok_or("it has no place")?;
    let bytes = section.bytes.as_deref().unwrap_or_default();
    if !bytes.len().is_multiple_of(size) {
        return Err(format!("not all have {size} bytes"));
    }
    let bugs = section.name.starts_with(".bug_frames.");
    let name: Arc<str> = section.name.as_str().into();
    let relocations: BTreeMap<u64, &Relocation> =
        section.relocations.iter().map(|r| (r.offset, r)).collect();
    if relocations.len() != section.relocations.len() {
        return Err("one place is filled in twice".to_owned());
    }
    for (number, raw) in (0u64..).zip(bytes.chunks_exact(size)) {
        let first = number * size as u64;
        // A frame of an assertion has a second half, for its text.
        let continues = bugs && !relocations.contains_key(&first);
        let (from, mut entry) = match image.annexes.pop() {
            Some(entry) if continues && entry.section == name => (entry.at.0 - start, entry),
            other => {
                image.annexes.extend(other);
                let entry = Annex {
                    section: Arc::clone(&name),
                    owner: LinkAddr(0),
                    at: LinkAddr(start + first),
                    bytes: Vec::new(),
                    fields: Vec::new(),
                };
                (first, entry)
            }
        };
        entry.bytes.extend_from_slice(raw);
        for (offset, relocation) in relocations.range(first..first + size as u64) {
            if ![elf::R_X86_64_PC32, elf::R_X86_64_PLT32].contains(&relocation.kind) {
                return Err(format!("a field has relocation {}", relocation.kind.0));
            }
            let Value::Place(to) = linked.value(at.0, relocation.symbol) else {
                return Err("a field leads nowhere".to_owned());
            };
            let inner = offset - from;
            let field = field(inner, to, relocation.addend, bugs);
            let place = usize::try_from(inner).map_err(|e| e.to_string())?;
            let room = entry.bytes.get_mut(place..place + 4);
            room.ok_or("a field reaches over its entry")?.fill(0);
            entry.fields.push(field);
        }
        match entry.fields.first() {
            Some(field) if field.offset == 0 => entry.owner = field.target,
            _ => {
                return Err(format!(
                    "entry {number} does not say which code it is about"
                ));
            }
        }
        image.annexes.push(entry);
    }
    Ok(())
}

/// Takes apart what the assembler wrote into the addend.
fn field(offset: u64, to: u64, addend: i64, bugs: bool) -> AnnexField {
    // In `.bug_frames.N` all distances count from the entry, and above their 24 bits stands
    // half of the line; a third field is a distance alone.
    const BITS: u32 = 24;
    let (addend, above) = if bugs && offset < 8 {
        let low = addend << (i64::BITS - BITS) >> (i64::BITS - BITS);
        let above = (addend.wrapping_sub(low) >> BITS) & 0xff;
        (low, u32::try_from(above).unwrap_or_default())
    } else {
        (addend, 0)
    };
    let base = if bugs { offset } else { 0 };
    AnnexField {
        offset,
        target: LinkAddr(to.wrapping_add_signed(addend).wrapping_sub(base)),
        above,
    }
}

/// What the second field of an entry leads to, as a part of the function that the first one
/// is about.
fn parts(image: &Image) -> Vec<Symbol> {
    let mut wanted: Vec<(LinkAddr, Option<u64>, &Annex)> = Vec::new();
    for annex in &image.annexes {
        let [_, field, ..] = &annex.fields[..] else {
            continue;
        };
        let length = match (&*annex.section, annex.bytes.get(LENGTH)) {
            (".altinstructions", Some(length)) => Some(u64::from(*length)),
            (".ex_table" | ".ex_table.pre", _) => None,
            _ => continue,
        };
        let text = image
            .section_at(field.target)
            .is_some_and(|s| s.kind == SectionKind::Text);
        if text && image.entity_at(field.target).is_none() && length != Some(0) {
            wanted.push((field.target, length, annex));
        }
    }
    let starts: BTreeSet<LinkAddr> = wanted.iter().map(|(at, ..)| *at).collect();
    let mut numbers: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    let mut found: BTreeMap<LinkAddr, Symbol> = BTreeMap::new();
    wanted.sort_by_key(|(at, _, annex)| (*at, annex.at));
    for (at, length, annex) in wanted {
        let owner = image.entity_at(annex.owner).map(|id| image.entity(id));
        let Some(owner) = owner.filter(|owner| owner.kind == EntityKind::Function) else {
            continue;
        };
        if found.contains_key(&at) {
            continue;
        }
        // A way on after a fault ends where the next one begins.
        let next = starts.range(LinkAddr(at.0 + 1)..).next().copied();
        let end = image.section_at(at).map_or(at, |section| section.range.end);
        let end = next.map_or(end, |next| next.min(end));
        let size = length.unwrap_or(end.0 - at.0).min(end.0 - at.0);
        let symbol = owner.symbol();
        let number = numbers.entry(Arc::clone(&symbol.name)).or_default();
        let name = part_name(&symbol.name, *number);
        *number += 1;
        found.insert(
            at,
            Symbol {
                name: name.into(),
                addr: at,
                size,
                kind: SymbolKind::Function,
                binding: Binding::Local,
                file: symbol.file.clone(),
                exported: false,
                weak: false,
            },
        );
    }
    found.into_values().collect()
}
