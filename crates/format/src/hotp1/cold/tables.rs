//! Directories that grow: copies with more entries, behind everything else.

use std::collections::BTreeSet;
use std::ops::Range;

use invivo_image::Rva;
use invivo_image::pe::{
    BaseRelocation, BaseRelocationKind, PeImage, PeMachine, UnwindFunction, directory,
};

use super::parts::Parts;
use super::{ColdError, MARK, refuse};
use crate::section::set;

/// Bytes of an import descriptor, of an entry of the debug directory, and of one of unwind data.
const IMPORT: usize = 20;
const DEBUG: usize = 28;
const UNWIND: usize = 12;

/// The section in the making.
#[derive(Debug)]
pub(in crate::hotp1) struct Tables {
    start: u64,
    bytes: Vec<u8>,
    /// Directories, and what they are now.
    directories: Vec<(usize, u32, u32)>,
    /// Where in the section the debug directory says where the mark is in the file.
    pointer: usize,
    mark: u32,
}

impl Tables {
    /// For a section that begins at `start` with these bytes.
    pub(in crate::hotp1) fn new(start: u64, bytes: Vec<u8>) -> Tables {
        Tables {
            start,
            bytes,
            directories: Vec::new(),
            pointer: 0,
            mark: 0,
        }
    }

    pub(in crate::hotp1) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds bytes at a multiple of 8; where they are.
    fn add(&mut self, bytes: &[u8]) -> Result<u32, ColdError> {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.start + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        let place = u32::try_from(at);
        place.or_else(|_| refuse("the image would exceed 4 GiB"))
    }

    /// Adds a directory's contents.
    pub(super) fn put(&mut self, index: usize, bytes: &[u8]) -> Result<(), ColdError> {
        let at = self.add(bytes)?;
        let size = u32::try_from(bytes.len());
        let size = size.or_else(|_| refuse("a table would exceed 4 GiB"))?;
        self.directories.push((index, at, size));
        Ok(())
    }

    /// The debug directory of `image` with an entry more: the mark of a patch.
    pub(in crate::hotp1) fn debug(
        &mut self,
        image: &PeImage,
        mark: &[u8],
    ) -> Result<(), ColdError> {
        self.mark = u32::try_from(self.bytes.len().next_multiple_of(8)).unwrap_or(0);
        let at = self.add(mark)?;
        let size = u32::try_from(mark.len()).unwrap_or(0);
        let old = image.directory(directory::DEBUG);
        let old = old.and_then(|old| image.bytes(old.at, old.size.into()));
        let mut entries = old.unwrap_or_default().to_vec();
        entries.truncate(entries.len() / DEBUG * DEBUG);
        let pointer = entries.len() + 24;
        // Characteristics, TimeDateStamp, version, Type, SizeOfData, AddressOfRawData,
        // PointerToRawData.
        for word in [0, image.time_stamp, 0, MARK, size, at, 0] {
            entries.extend(word.to_le_bytes());
        }
        self.put(directory::DEBUG, &entries)?;
        self.pointer = self.bytes.len() - entries.len() + pointer;
        Ok(())
    }

    /// The libraries of the base, then those of the module.
    pub(super) fn imports(
        &mut self,
        base: &PeImage,
        module: &PeImage,
        distance: u32,
    ) -> Result<(), ColdError> {
        let more = descriptors(module);
        if more.is_empty() {
            return Ok(());
        }
        let mut words: Vec<u32> = descriptors(base).into_iter().flatten().collect();
        for [names, _, _, name, slots] in more {
            for place in [names, 0, 0, name, slots] {
                let moved = match place {
                    0 => Some(0),
                    place => place.checked_add(distance),
                };
                let Some(moved) = moved else {
                    return refuse("the patch module's imports are not in it");
                };
                words.push(moved);
            }
        }
        words.extend([0; IMPORT / 4]);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(directory::IMPORT, &bytes)?;
        // A loader that finds it looks at nothing else.
        self.directories.push((directory::BOUND_IMPORT, 0, 0));
        Ok(())
    }

    /// The export directory that `made` gives for its place, if any.
    pub(super) fn exports(
        &mut self,
        made: impl FnOnce(u32) -> Result<Option<Vec<u8>>, ColdError>,
    ) -> Result<(), ColdError> {
        let at = self.add(&[])?;
        match made(at)? {
            Some(bytes) => self.put(directory::EXPORT, &bytes),
            None => Ok(()),
        }
    }

    /// The base's relocations, then these.
    pub(super) fn relocations(
        &mut self,
        base: &PeImage,
        mut more: Vec<BaseRelocation>,
    ) -> Result<(), ColdError> {
        const STRIPPED: u8 = 1;
        let characteristics = base.header_places().section_count + 16;
        let fixed = base.file().get(characteristics).copied().unwrap_or(0) & STRIPPED != 0;
        if more.is_empty() || fixed {
            return Ok(());
        }
        more.sort_unstable();
        let width = |pair: &[BaseRelocation]| pair[0].at.0 + pair[0].kind.width();
        if more.windows(2).any(|pair| width(pair) > pair[1].at.0) {
            return refuse("two addresses of the patch module share bytes");
        }
        let old = base.directory(directory::BASE_RELOCATION);
        let old = old.and_then(|old| base.bytes(old.at, old.size.into()));
        let mut bytes = old.unwrap_or_default().to_vec();
        bytes.truncate(bytes.len() / 4 * 4);
        for page in more.chunk_by(|one, other| one.at.0 >> 12 == other.at.0 >> 12) {
            let mut entries: Vec<u16> = page
                .iter()
                .map(|one| kind(one.kind) << 12 | (one.at.0 & 0xfff) as u16)
                .collect();
            if entries.len() % 2 == 1 {
                entries.push(0);
            }
            let at = u32::try_from(page[0].at.0 & !0xfff).unwrap_or(u32::MAX);
            // A page has few addresses.
            let size = 8 + 2 * entries.len() as u32;
            bytes.extend([at, size].iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
        }
        self.put(directory::BASE_RELOCATION, &bytes)
    }

    /// Leads the file's headers to what was moved; the section begins at `in_file` in the file.
    pub(in crate::hotp1) fn finish(&self, base: &PeImage, file: &mut [u8], in_file: u32) {
        let table = base.header_places().directories;
        for (index, at, size) in &self.directories {
            let place = table + 8 * index;
            if *index < base.directories.len() {
                set(file, place, *at);
                set(file, place + 4, *size);
            }
        }
        let place = in_file as usize + self.pointer;
        set(file, place, in_file + self.mark);
    }
}

fn kind(kind: BaseRelocationKind) -> u16 {
    match kind {
        BaseRelocationKind::Address32 => 3,
        BaseRelocationKind::Address64 => 10,
        BaseRelocationKind::Other(number) => number,
    }
}

/// The import descriptors up to the end.
pub(super) fn descriptors(image: &PeImage) -> Vec<[u32; IMPORT / 4]> {
    let mut found = Vec::new();
    let Some(table) = image.directory(directory::IMPORT) else {
        return found;
    };
    for number in 0_u64.. {
        let at = table.at.checked_add(number * IMPORT as u64);
        let Some(bytes) = at.and_then(|at| image.array::<IMPORT>(at)) else {
            break;
        };
        let mut words = [0; IMPORT / 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        // So the loader knows the end.
        if words[3] == 0 || words[4] == 0 {
            break;
        }
        found.push(words);
    }
    found
}

/// The table of unwind data with that of the module's code that runs; `None` if it stays as it is.
pub(super) fn unwind(
    base: &PeImage,
    module: &PeImage,
    parts: &mut Parts,
    code: Option<&[Range<Rva>]>,
) -> Result<Option<Vec<u8>>, ColdError> {
    if base.machine != PeMachine::Amd64 {
        return Ok(None);
    }
    let runs = |function: &Range<Rva>| {
        code.is_none_or(|code| {
            let meets =
                |range: &Range<Rva>| range.start < function.end && function.start < range.end;
            code.iter().any(meets)
        })
    };
    let old = base.directory(directory::EXCEPTION);
    let old = old.and_then(|old| base.bytes(old.at, old.size.into()));
    let mut table = old.unwrap_or_default().to_vec();
    table.truncate(table.len() / UNWIND * UNWIND);
    let (before, mut done) = (table.len(), BTreeSet::new());
    let mut functions: Vec<_> = module.functions.iter().filter(|f| runs(&f.code)).collect();
    functions.sort_by_key(|function| function.code.start);
    if !functions.is_empty() {
        in_order("base", &base.functions)?;
    }
    let mut last = Rva(0);
    for function in functions {
        let (start, end) = (function.code.start, function.code.end);
        if start < last {
            return refuse(overlap("patch module", start, last));
        }
        last = end;
        let data = function.unwind.filter(|data| data.0 % 2 == 0);
        let Some(data) = data else {
            return refuse(format!(
                "the unwind data of {start} are those of another function"
            ));
        };
        let within = end.0.checked_sub(1).map(Rva).filter(|_| start < end);
        let carried = within.is_some_and(|within| parts.holds(within)) && parts.holds(start);
        if !carried || !parts.holds(data) || !parts.holds(Rva(data.0 + 3)) {
            return refuse(format!(
                "the exception directory of the patch module has an entry for {start} to {end} with \
                 unwind data at {data}, which do not all come into the new file; link the fixed build \
                 again, so that each entry is about a function in its sections"
            ));
        }
        if done.insert(data) {
            lead(module, parts, data, start)?;
        }
        for place in [start, function.code.end, data] {
            let moved = u32::try_from(place.0 + u64::from(parts.distance));
            let moved = moved.or_else(|_| refuse("the image would exceed 4 GiB"))?;
            table.extend(moved.to_le_bytes());
        }
    }
    Ok((table.len() > before).then_some(table))
}

/// Windows searches the table by halves: what is added is found only where the rest is in order.
fn in_order(whose: &str, functions: &[UnwindFunction]) -> Result<(), ColdError> {
    let mut pairs = functions.windows(2);
    match pairs.find(|pair| pair[1].code.start < pair[0].code.end) {
        Some(pair) => refuse(overlap(whose, pair[1].code.start, pair[0].code.end)),
        None => Ok(()),
    }
}

fn overlap(whose: &str, start: Rva, end: Rva) -> String {
    format!(
        "the exception directory of the {whose} is not in order: an entry begins at {start}, the one \
         before it ends at {end}; link it again (without /incremental)"
    )
}

/// Makes the places right to which unwind data lead.
fn lead(module: &PeImage, parts: &mut Parts, data: Rva, of: Rva) -> Result<(), ColdError> {
    const HANDLERS: u8 = 1 | 2;
    const CHAINED: u8 = 4;
    let Some([form, _, codes, _]) = module.array(data) else {
        return refuse(format!(
            "the unwind data of {of} are not in the patch module"
        ));
    };
    let behind = data.0 + 4 + u64::from(codes).next_multiple_of(2) * 2;
    let flags = form >> 3;
    if flags & HANDLERS != 0 {
        // Each language has tables of its own behind it, which hold places too.
        return refuse(format!(
            "the function at {of} of the patch module handles exceptions; take that out of it"
        ));
    }
    if flags & CHAINED != 0 {
        for word in 0..3 {
            parts.shift(Rva(behind + 4 * word))?;
        }
    }
    Ok(())
}
