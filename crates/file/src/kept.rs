//! The base with its fixed functions behind it: a cold patch that keeps the layout.
//!
//! Every byte of the old file stays where it is, but for the entries of the functions that are
//! replaced, where a jump is written, and for what leads the loader to the new parts. Behind
//! the old file three segments are added:
//!
//! ```text
//! r--  program headers │ constants │ unwind data, the old ones and the new │ their table │ relocations
//! r-x  new functions │ landing stubs of hooks
//! rw-  variables, constants that hold addresses
//! ```
//!
//! Tables that the loader and the unwinder search (`DT_RELA`, `.eh_frame`, `PT_GNU_EH_FRAME`, the
//! program headers) cannot grow where they are: they are copied behind the old file with the new
//! entries in them. The file is another one, so it has another build id.
//!
//! Formats: System V gABI and its x86-64 supplement; for `.eh_frame_hdr` the LSB.

mod elf;
mod frames;
mod loader;
mod parts;
mod unwind;

use invivo_format::final_image::carried;
use invivo_patch::{Hex, Patch, Section, SectionKind, SymbolPlace};

use elf::Base;
use parts::Parts;

const PAGE: u64 = 0x1000;
/// Bytes between the end of the old file and the new segments at most: as the program headers
/// must lie as far from the start of the file as of memory, variables that start as zero
/// become part of the file.
const LARGEST_GAP: u64 = 64 << 20;

/// Why a file cannot be patched so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// It is not the file that the patch was made for.
    #[error("it is not the base of the patch: {0}")]
    OtherFile(String),
    /// It, or the patch, has no room for the new parts, or needs what only a new link can give.
    #[error("its layout cannot be kept: {0}")]
    Unfit(String),
}

fn unfit<T>(why: impl Into<String>) -> Result<T, KeptError> {
    Err(KeptError::Unfit(why.into()))
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The new file.
    pub file: Vec<u8>,
    /// Its build id.
    pub build_id: Hex,
}

/// The file `base` with the functions of `patch` in it. The same input gives the same bytes.
///
/// # Errors
/// When `base` is not the file that the patch belongs to, or its layout leaves no way.
pub fn kept_layout(base: &[u8], patch: &Patch) -> Result<Kept, KeptError> {
    if carried(base) > 0 {
        return unfit(
            "the base carries data behind its sections (an archive?), which it would look for from its \
             own end and no longer find; install the fixed build as it is",
        );
    }
    let mut base = Base::read(base, patch)?;
    if let Some((name, _)) = patch.imports().next() {
        return unfit(format!(
            "the new code needs {name} of another library, which the base does not import; \
             install the final image of the fixed build instead"
        ));
    }
    let start = base.end()?;
    let sections = patch.contents.sections.iter();
    let mut unwind = sections.filter(|section| section.kind == SectionKind::Unwind);
    let old = match (unwind.next(), unwind.next()) {
        (None, _) => None,
        (Some(new), None) if !base.moves || !parts::has_addresses(new) => {
            Some(Old::of(&base, new)?)
        }
        _ => return unfit("the unwind data of the new functions hold addresses"),
    };
    let sizes = parts::Sizes {
        headers: base.headers_size(parts::SEGMENTS),
        records: old.as_ref().map_or(0, |old| old.records.size()),
        unwind_table: old.as_ref().map_or(0, |old| old.table_size),
        relocations: loader::size(&base, patch)?,
    };
    let mut parts = Parts::place(patch, &base, start, &sizes)?;
    parts.fill(patch, &base)?;
    if let Some(old) = old {
        old.lead(&mut base, &mut parts)?;
    }
    if let Some(table) = loader::relocations(&mut base, &parts)? {
        parts.write(parts.relocations.start, &table)?;
    }
    for (at, bytes) in &parts.hooks {
        base.write(*at, bytes)?;
    }
    let new = parts.segments();
    let headers = base.move_headers(start, &new);
    parts.write(start, &headers)?;
    let mut file = base.finish(start, &parts.bytes)?;
    let build_id = elf::renew_build_id(&mut file, &patch.target.build_id)?;
    Ok(Kept { file, build_id })
}

/// Symbols that lie in the base, as the patch binds them.
fn link_address(patch: &Patch, place: &SymbolPlace) -> Option<u64> {
    match place {
        SymbolPlace::Base(at) => patch.target.base.0.checked_add(at.0),
        SymbolPlace::Patch { .. } | SymbolPlace::Import(_) => None,
    }
}

/// The old unwind data, to which those of the new functions are added.
struct Old {
    table: unwind::OldTable,
    records: frames::Records,
    /// Bytes of the new table.
    table_size: u64,
}

impl Old {
    fn of(base: &Base, new: &Section) -> Result<Old, KeptError> {
        let table = base.unwind_table()?;
        let records = frames::Records::read(base.unwind_records(&table)?, base.moves)?;
        let count = table.records.len() + unwind::count(&new.bytes)?;
        Ok(Old {
            records,
            table_size: unwind::size(count),
            table,
        })
    }

    /// Writes records and table at their new places, and leads everybody there.
    fn lead(self, base: &mut Base, parts: &mut Parts) -> Result<(), KeptError> {
        let all = parts.records.clone();
        let distance = all.start.wrapping_sub(self.table.eh_frame);
        let new_at = all.start + self.records.size();
        parts.write(all.start, &self.records.moved(distance)?)?;
        let new = (new_at, parts.read(new_at..all.end));
        let place = parts.unwind_table.clone();
        let table = unwind::table(&self.table, all.start, new, place.start)?;
        parts.write(place.start, &table)?;
        base.move_section(self.table.eh_frame, &all);
        base.move_unwind_table(&self.table, &place);
        Ok(())
    }
}
