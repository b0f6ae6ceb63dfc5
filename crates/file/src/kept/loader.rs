//! What the loader fills in: addresses in a file that may lie anywhere.

use invivo_patch::Patch;
use object::elf::{DT_NULL, DT_RELA, DT_RELACOUNT, DT_RELAENT, DT_RELASZ, R_X86_64_RELATIVE};

use super::elf::Base;
use super::parts::{self, Parts};
use super::{KeptError, unfit};

/// Bytes of an `Elf64_Rela`.
const ENTRY: u64 = 24;

/// The old table.
#[derive(Debug, Default)]
struct Old {
    at: u64,
    size: u64,
    /// Bytes of the relative relocations, which come first.
    relative: u64,
}

fn old(base: &Base) -> Result<Option<Old>, KeptError> {
    let dynamic = base.dynamic();
    let value = |tag: object::elf::DynamicTag| {
        let mut entries = dynamic.iter();
        entries.find(|entry| entry.1 == tag.0).map(|entry| entry.2)
    };
    let Some(at) = value(DT_RELA) else {
        return Ok(None);
    };
    let relative = value(DT_RELACOUNT).unwrap_or(0).checked_mul(ENTRY);
    match (value(DT_RELASZ), value(DT_RELAENT), relative) {
        (Some(size), Some(ENTRY), Some(relative)) if relative <= size => {
            Ok(Some(Old { at, size, relative }))
        }
        _ => unfit("its table of relocations is broken"),
    }
}

/// Bytes of the new table; 0 if none is needed.
pub(super) fn size(base: &Base, patch: &Patch) -> Result<u64, KeptError> {
    let sections = patch.contents.sections.iter();
    let new: usize = sections.map(parts::addresses).map(Iterator::count).sum();
    if new == 0 || !base.moves {
        return Ok(0);
    }
    let old = old(base)?.unwrap_or_default().size;
    let size = old.checked_add(ENTRY * new as u64);
    // The old table is in the file; it is looked at when it is copied.
    size.filter(|size| *size < 1 << 31)
        .map_or_else(|| unfit("its table of relocations is too large"), Ok)
}

/// The new table, to which the loader is led; `None` if none is needed.
pub(super) fn relocations(base: &mut Base, parts: &Parts) -> Result<Option<Vec<u8>>, KeptError> {
    let place = &parts.relocations;
    if place.is_empty() {
        return Ok(None);
    }
    let before = old(base)?;
    let old = before.as_ref();
    let (at, size, relative) = old.map_or((0, 0, 0), |old| (old.at, old.size, old.relative));
    let Some(bytes) = (if size == 0 {
        Some(&[][..])
    } else {
        base.bytes(at, size)
    }) else {
        return unfit("its table of relocations is not in the file");
    };
    let split = usize::try_from(relative)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let (first, rest) = bytes.split_at(split);
    let mut table = first.to_vec();
    for (at, value) in &parts.addresses {
        let kind = u64::from(R_X86_64_RELATIVE.0);
        for word in [*at, kind, *value] {
            table.extend(word.to_le_bytes());
        }
    }
    table.extend_from_slice(rest);
    let count = relative / ENTRY + parts.addresses.len() as u64;
    lead(base, place.start, table.len() as u64, count, old.is_some())?;
    base.move_section(at, place);
    Ok(Some(table))
}

/// Writes the loader's own table.
fn lead(base: &mut Base, at: u64, size: u64, count: u64, had: bool) -> Result<(), KeptError> {
    let dynamic = base.dynamic();
    if had {
        for (place, tag, _) in &dynamic {
            let value = [(DT_RELA, at), (DT_RELASZ, size), (DT_RELACOUNT, count)];
            let value = value.iter().find(|(name, _)| name.0 == *tag);
            if let Some((_, value)) = value {
                base.write(place + 8, &value.to_le_bytes())?;
            }
        }
        return Ok(());
    }
    // Linkers leave room behind the last entry; one empty entry ends the table.
    let end = dynamic.iter().position(|(_, tag, _)| *tag == DT_NULL.0);
    let free = end.map_or(&[][..], |end| &dynamic[end..]);
    let new = [(DT_RELA, at), (DT_RELASZ, size), (DT_RELAENT, ENTRY)];
    if free.len() <= new.len() {
        return unfit(
            "the new code holds addresses, and there is no room to tell the loader of them \
             (no DT_RELA); install the final image of the fixed build instead",
        );
    }
    for ((place, _, _), (tag, value)) in free.iter().zip(new) {
        base.write(*place, &tag.0.to_le_bytes())?;
        base.write(place + 8, &value.to_le_bytes())?;
    }
    Ok(())
}
