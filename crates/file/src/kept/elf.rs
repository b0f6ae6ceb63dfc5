//! The old file: its headers, its tables, and what is written into it.

use std::mem::size_of;
use std::ops::Range;

use invivo_patch::{Hex, Patch};
use object::elf::{self as names, Dyn64, FileHeader64, ProgramHeader64};
use object::endian::{LittleEndian, U32, U64};
use object::pod::{bytes_of, from_bytes_mut};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use sha2::{Digest as _, Sha256};

use super::unwind::{self, OldTable};
use super::{KeptError, LARGEST_GAP, PAGE, unfit};

type Elf = FileHeader64<LittleEndian>;
type Header = ProgramHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// A segment to be added, at the place in the file that lies as far behind the start as in memory.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) range: Range<u64>,
    pub(super) flags: u32,
}

/// The old file, which becomes the new one.
#[derive(Debug)]
pub(super) struct Base {
    file: Vec<u8>,
    headers: Vec<Header>,
    /// True if the loader chooses where it lies: then addresses in it need relocations.
    pub(super) moves: bool,
    /// What an address of the first segment has more than the place in the file.
    bias: u64,
}

impl Base {
    /// Reads a file that must be the one that `patch` belongs to.
    pub(super) fn read(file: &[u8], patch: &Patch) -> Result<Base, KeptError> {
        let other = |what: &str| KeptError::OtherFile(what.to_owned());
        let header = Elf::parse(file).map_err(|_| other("it is no ELF file of 64 bits"))?;
        let headers = header.program_headers(LE, file);
        let headers = headers.map_err(|_| other("its program headers cannot be read"))?;
        if header.e_machine.get(LE) != names::EM_X86_64 {
            return Err(other("it is for another machine"));
        }
        let first = headers.iter().find(|h| h.p_type(LE) == names::PT_LOAD);
        let first = first.ok_or_else(|| other("nothing of it is loaded"))?;
        let bias = first.p_vaddr(LE).checked_sub(first.p_offset(LE));
        let base = Base {
            file: file.to_vec(),
            headers: headers.to_vec(),
            moves: header.e_type.get(LE) == names::ET_DYN,
            bias: bias
                .ok_or_else(|| other("its first segment lies before its place in the file"))?,
        };
        if !base.bias.is_multiple_of(PAGE) {
            return unfit("its first segment does not lie as its pages do in the file");
        }
        build_id_place(&base.file, &patch.target.build_id)?;
        for check in &patch.checks {
            let at = patch.target.base.0.checked_add(check.at.0);
            let bytes = at.and_then(|at| base.bytes(at, check.size));
            if !bytes.is_some_and(|bytes| check.is_of(bytes)) {
                return Err(other(&format!("its code at {} is another one", check.at)));
            }
        }
        Ok(base)
    }

    fn loads(&self) -> impl Iterator<Item = &Header> {
        let all = self.headers.iter();
        all.filter(|header| header.p_type(LE) == names::PT_LOAD)
    }

    /// Where the first new segment begins: behind all that is loaded, and all that is in the file.
    pub(super) fn end(&self) -> Result<u64, KeptError> {
        let ends = self
            .loads()
            .map(|h| h.p_vaddr(LE).checked_add(h.p_memsz(LE)));
        let size = self.file.len() as u64;
        let mut loaded = ends.chain([self.bias.checked_add(size)]);
        let end = loaded.try_fold(0, |most: u64, end| end.map(|end| most.max(end)));
        let end = end.and_then(|end| end.checked_next_multiple_of(PAGE));
        // What is added is bounded by the model; twice as far is out of the reach of a jump.
        match end.filter(|end| *end < 1 << 46) {
            Some(end) if end - self.bias <= size + LARGEST_GAP => Ok(end),
            Some(_) => {
                unfit("its variables that start as zero take more room than is left free in a file")
            }
            None => unfit("it fills its address space"),
        }
    }

    /// Where the bytes at `at` are in the file.
    fn place(&self, at: u64, size: u64) -> Option<Range<usize>> {
        let end = at.checked_add(size)?;
        let load = self.loads().find(|h| {
            let start = h.p_vaddr(LE);
            let stop = start.checked_add(h.p_filesz(LE));
            start <= at && stop.is_some_and(|stop| end <= stop)
        })?;
        let from = load.p_offset(LE).checked_add(at - load.p_vaddr(LE))?;
        let from = usize::try_from(from).ok()?;
        let to = from.checked_add(usize::try_from(size).ok()?)?;
        (to <= self.file.len()).then_some(from..to)
    }

    /// The bytes at an address, as the file has them.
    pub(super) fn bytes(&self, at: u64, size: u64) -> Option<&[u8]> {
        self.file.get(self.place(at, size)?)
    }

    /// Writes bytes at an address.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), KeptError> {
        let place = self.place(at, bytes.len() as u64);
        let place = place.and_then(|place| self.file.get_mut(place));
        let Some(place) = place else {
            return unfit(format!("{at:#x} is not in the file"));
        };
        place.copy_from_slice(bytes);
        Ok(())
    }

    fn segment(&self, kind: names::ProgramType) -> Option<&Header> {
        self.headers.iter().find(|h| h.p_type(LE) == kind)
    }

    /// The unwinder's table; new records can only be found with one.
    pub(super) fn unwind_table(&self) -> Result<OldTable, KeptError> {
        let header = self.segment(names::PT_GNU_EH_FRAME);
        let table = header.and_then(|header| {
            let at = header.p_vaddr(LE);
            unwind::read_table(self.bytes(at, header.p_filesz(LE))?, at)
        });
        table.map_or_else(
            || unfit("it has no table of its unwind data that new records could be added to"),
            Ok,
        )
    }

    /// The old unwind records, and what is behind them in their segment.
    pub(super) fn unwind_records(&self, old: &OldTable) -> Result<&[u8], KeptError> {
        let holds = |h: &&Header| {
            let from = old.eh_frame.checked_sub(h.p_vaddr(LE));
            from.is_some_and(|from| from < h.p_filesz(LE))
        };
        let load = self.loads().find(holds);
        let bytes = load.and_then(|h| {
            let size = h.p_filesz(LE) - (old.eh_frame - h.p_vaddr(LE));
            self.bytes(old.eh_frame, size)
        });
        bytes.map_or_else(|| unfit("its unwind data are not in the file"), Ok)
    }

    /// Leads the unwinder to a table at another place.
    pub(super) fn move_unwind_table(&mut self, old: &OldTable, to: &Range<u64>) {
        self.move_section(old.at, to);
        let bias = self.bias;
        let mut all = self.headers.iter_mut();
        if let Some(header) = all.find(|h| h.p_type(LE) == names::PT_GNU_EH_FRAME) {
            place_at(header, to, bias);
        }
    }

    /// Bytes of the program headers when `more` were added.
    pub(super) fn headers_size(&self, more: usize) -> u64 {
        ((self.headers.len() + more) * size_of::<Header>()) as u64
    }

    /// The new program headers, which will be at `at`.
    pub(super) fn move_headers(&mut self, at: u64, new: &[Segment]) -> Vec<u8> {
        let bias = self.bias;
        let added = new.iter().map(|segment| {
            let mut header = Header {
                p_type: U32::new(LE, names::PT_LOAD),
                p_flags: U32::new(LE, names::ProgramFlags(segment.flags)),
                p_offset: U64::new(LE, 0),
                p_vaddr: U64::new(LE, 0),
                p_paddr: U64::new(LE, 0),
                p_filesz: U64::new(LE, 0),
                p_memsz: U64::new(LE, 0),
                p_align: U64::new(LE, PAGE),
            };
            place_at(&mut header, &segment.range, bias);
            header
        });
        let last = self
            .headers
            .iter()
            .rposition(|h| h.p_type(LE) == names::PT_LOAD);
        let behind = last.map_or(0, |last| last + 1);
        self.headers.splice(behind..behind, added);
        let size = self.headers_size(0);
        let own = self.headers.iter_mut();
        for header in own.filter(|h| h.p_type(LE) == names::PT_PHDR) {
            place_at(header, &(at..at + size), bias);
        }
        let headers = self.headers.iter();
        headers
            .flat_map(|header| bytes_of(header).to_vec())
            .collect()
    }

    /// Entries of the loader's table: where each is, its tag and its value.
    pub(super) fn dynamic(&self) -> Vec<(u64, i64, u64)> {
        let Some(header) = self.segment(names::PT_DYNAMIC) else {
            return Vec::new();
        };
        let Ok(Some(table)) = header.dynamic(LE, self.file.as_slice()) else {
            return Vec::new();
        };
        let places = (header.p_vaddr(LE)..).step_by(size_of::<Dyn64<LittleEndian>>());
        let entries = places.zip(table);
        entries
            .map(|(at, entry)| (at, entry.d_tag(LE).0, entry.d_val(LE)))
            .collect()
    }

    /// Leads tools that read the table of sections to what was moved to another place.
    pub(super) fn move_section(&mut self, from: u64, to: &Range<u64>) {
        let offset = to.start - self.bias;
        let Ok(header) = Elf::parse(self.file.as_slice()) else {
            return;
        };
        let (table, count) = (header.e_shoff.get(LE), header.e_shnum.get(LE));
        for number in 0..u64::from(count) {
            let size = size_of::<names::SectionHeader64<LittleEndian>>() as u64;
            let at = usize::try_from(table + number * size).unwrap_or(usize::MAX);
            let bytes = self.file.get_mut(at..).unwrap_or_default();
            let Ok((section, _)) = from_bytes_mut::<names::SectionHeader64<LittleEndian>>(bytes)
            else {
                return;
            };
            // Empty sections may share an address with the one that is meant.
            if section.sh_addr.get(LE) == from && section.sh_size.get(LE) != 0 && from != 0 {
                section.sh_addr.set(LE, to.start);
                section.sh_offset.set(LE, offset);
                section.sh_size.set(LE, to.end - to.start);
            }
        }
    }

    /// The new file: the old one, and `added` at the address `start`.
    pub(super) fn finish(mut self, start: u64, added: &[u8]) -> Result<Vec<u8>, KeptError> {
        let place = start - self.bias;
        let long = |_| KeptError::Unfit("it is too large".to_owned());
        self.file.resize(usize::try_from(place).map_err(long)?, 0);
        self.file.extend_from_slice(added);
        let count = u16::try_from(self.headers.len()).map_err(long)?;
        let header = from_bytes_mut::<Elf>(&mut self.file);
        let (header, _) = header.map_err(|()| KeptError::Unfit("it is too short".to_owned()))?;
        header.e_phoff.set(LE, place);
        header.e_phnum.set(LE, count);
        Ok(self.file)
    }
}

fn place_at(header: &mut Header, range: &Range<u64>, bias: u64) {
    header.p_offset.set(LE, range.start - bias);
    header.p_vaddr.set(LE, range.start);
    header.p_paddr.set(LE, range.start);
    header.p_filesz.set(LE, range.end - range.start);
    header.p_memsz.set(LE, range.end - range.start);
}

/// Where the build id is in the file, which must be `expected`.
fn build_id_place(file: &[u8], expected: &Hex) -> Result<Range<usize>, KeptError> {
    let found = || {
        let header = Elf::parse(file).ok()?;
        for segment in header.program_headers(LE, file).ok()? {
            let Ok(Some(mut notes)) = segment.notes(LE, file) else {
                continue;
            };
            while let Ok(Some(note)) = notes.next() {
                let is_id = note.n_type(LE) == names::NT_GNU_BUILD_ID;
                if is_id && note.name() == names::ELF_NOTE_GNU {
                    let start = note.desc().as_ptr().addr() - file.as_ptr().addr();
                    return Some(start..start + note.desc().len());
                }
            }
        }
        None
    };
    match found() {
        Some(place) if file[place.clone()] == expected.0[..] => Ok(place),
        Some(_) => Err(KeptError::OtherFile(
            "its build id is another one".to_owned(),
        )),
        None => Err(KeptError::OtherFile("it has no build id".to_owned())),
    }
}

/// Gives the file a build id of its own, which depends on all that is in it.
pub(super) fn renew_build_id(file: &mut [u8], old: &Hex) -> Result<Hex, KeptError> {
    let place = build_id_place(file, old)?;
    let mut id = Sha256::digest(&*file).to_vec();
    if place.len() > id.len() {
        return unfit("its build id is longer than a digest");
    }
    id.truncate(place.len());
    file[place].copy_from_slice(&id);
    Ok(Hex(id))
}
