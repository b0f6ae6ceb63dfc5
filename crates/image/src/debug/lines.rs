//! Which source line an instruction comes from.

use std::collections::HashMap;
use std::fmt;

use gimli::{AttributeValue, constants as dw};
use serde::Serialize;

use super::{Bytes, DebugData, DebugEntry};
use crate::LinkAddr;

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
pub struct SourcePlace {
    /// The file, as the compiler was given it.
    pub file: String,
    /// Counted from 1; 0 where the compiler says that no line fits.
    pub line: u32,
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The line table of one unit.
#[derive(Default)]
pub(super) struct Rows {
    /// Start, file and line, in order of the start; line 0 where a sequence ends.
    rows: Vec<(u64, u64, u32)>,
    files: HashMap<u64, String>,
}

impl<'s> DebugData<'s> {
    /// The source line of the instruction at `at`.
    #[must_use]
    pub fn place_of(&self, at: LinkAddr) -> Option<SourcePlace> {
        let rows = self.rows(self.unit_at(at)?)?;
        let after = rows.rows.partition_point(|(start, _, _)| *start <= at.0);
        let (_, file, line) = rows.rows[after.checked_sub(1)?];
        Some(SourcePlace {
            file: rows.files.get(&file).filter(|_| line > 0)?.clone(),
            line,
        })
    }

    pub(super) fn declared(&self, unit: usize, entry: &DebugEntry<'s>) -> Option<SourcePlace> {
        self.place(unit, entry, dw::DW_AT_decl_file, dw::DW_AT_decl_line)
    }

    pub(super) fn place(
        &self,
        unit: usize,
        entry: &DebugEntry<'s>,
        file: gimli::DwAt,
        line: gimli::DwAt,
    ) -> Option<SourcePlace> {
        let file = match entry.attr_value(file)? {
            AttributeValue::FileIndex(file) => file,
            value => value.udata_value()?,
        };
        let line = entry.attr_value(line)?.udata_value()?;
        Some(SourcePlace {
            file: self.rows(unit)?.files.get(&file)?.clone(),
            line: u32::try_from(line).ok()?,
        })
    }

    fn rows(&self, unit: usize) -> Option<&Rows> {
        let unit = self.units[unit].skeleton.unwrap_or(unit);
        let loaded = self.unit(unit)?;
        Some(loaded.rows.get_or_init(|| {
            let mut rows = Rows::default();
            // A broken table still holds what lies before the broken place.
            let _broken = self.read_rows(unit, &mut rows);
            // At one address the last row counts; a sequence that ends gives way to the
            // one that begins there.
            rows.rows
                .sort_by_key(|(start, _, line)| (*start, *line != 0));
            rows
        }))
    }

    fn read_rows(&self, unit: usize, into: &mut Rows) -> Result<(), gimli::Error> {
        let Some(loaded) = self.unit(unit) else {
            return Ok(());
        };
        let Some(program) = loaded.unit.line_program.clone() else {
            return Ok(());
        };
        let header = program.header().clone();
        let folder = loaded.unit.comp_dir.as_ref().map(|bytes| bytes.slice());
        let text = |value| {
            let text: Bytes<'s> = self.dwarf(unit).attr_string(&loaded.unit, value).ok()?;
            Some(text.slice())
        };
        // Until DWARF 4 files count from 1, since DWARF 5 from 0.
        let first = u64::from(header.version() < 5);
        for (index, file) in (first..).zip(header.file_names()) {
            let Some(name) = text(file.path_name()) else {
                continue;
            };
            let directory = file.directory(&header).and_then(text).unwrap_or_default();
            into.files.insert(index, path(folder, directory, name));
        }
        let mut rows = program.rows();
        while let Some((_, row)) = rows.next_row()? {
            let line = row.line().map_or(0, |line| line.get());
            let line = if row.end_sequence() { 0 } else { line };
            let line = u32::try_from(line).unwrap_or(0);
            into.rows.push((row.address(), row.file_index(), line));
        }
        Ok(())
    }
}

/// A file's path, relative to the folder of the compiler where it lies below it.
fn path(folder: Option<&[u8]>, directory: &[u8], name: &[u8]) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (name, directory) = (text(name), text(directory));
    let folder = folder.map(text).unwrap_or_default();
    let whole = if name.starts_with('/') || directory.is_empty() {
        name
    } else {
        format!("{directory}/{name}")
    };
    let below = whole
        .strip_prefix(&folder)
        .and_then(|rest| rest.strip_prefix('/'));
    below
        .filter(|_| !folder.is_empty())
        .map_or(whole.clone(), str::to_owned)
}
