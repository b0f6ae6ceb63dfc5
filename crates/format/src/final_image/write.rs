//! Fixed build and manifest → file.

use std::mem::size_of;

use object::elf::{self, FileHeader64, SectionFlags, SectionHeader64, SectionType, SymbolSection};
use object::endian::{LittleEndian, U32, U64};
use object::pod::{bytes_of, from_bytes_mut};
use object::read::elf::{FileHeader, SectionHeader};

use super::{FinalError, MANIFEST, Manifest, PATCH};
use crate::digest;

type Elf = FileHeader64<LittleEndian>;
type Header = SectionHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// Said of what [`carried`] finds.
const CARRIES: &str = "it carries data behind its sections (an archive?), which it would look for from \
                       its own end and no longer find; install the fixed build as it is";

/// Where sections begin in the file is a multiple of this.
const ALIGN: usize = 16;

/// Writes a final image: `fixed`, an ELF file of 64 bits, with what `manifest` says and with
/// `patch`, the file for running processes, inside. The same input gives the same bytes.
///
/// # Errors
/// When `fixed` is something else, is a final image already, or has no room for sections.
pub fn write(
    fixed: &[u8],
    manifest: &Manifest,
    patch: Option<&[u8]>,
) -> Result<Vec<u8>, FinalError> {
    let json = serde_json::to_vec(manifest);
    let json = json.map_err(|error| FinalError::Broken(format!("manifest: {error}")))?;
    let mut file = Growing::of(fixed)?;
    file.add(MANIFEST, elf::SHT_PROGBITS, &json)?;
    if let Some(patch) = patch {
        file.add(PATCH, elf::SHT_PROGBITS, patch)?;
    }
    let digest_at = file.add(digest::NAME, elf::SHT_PROGBITS, &[0; digest::SIZE])?;
    let mut file = file.finish()?;
    let place = digest_at..digest_at + digest::SIZE;
    let digest = digest::of(&file, &place).expect("it was just written");
    file[place].copy_from_slice(&digest.0);
    Ok(file)
}

/// Bytes of an ELF file behind all that its headers describe, unless they are zeros that fill it up:
/// an archive, which its program looks for from the end of its own file or of its own headers. Of a file
/// whose headers cannot be read, which no loader takes, nothing is told.
#[must_use]
pub fn carried(file: &[u8]) -> u64 {
    let end = described(file).and_then(|end| usize::try_from(end).ok());
    let rest = end.and_then(|end| file.get(end..)).unwrap_or_default();
    match rest.iter().all(|byte| *byte == 0) {
        true => 0,
        false => rest.len() as u64,
    }
}

/// Where the last thing ends that the headers describe.
fn described(file: &[u8]) -> Option<u64> {
    let header = Elf::parse(file).ok()?;
    let mut ends = Vec::new();
    for segment in header.program_headers(LE, file).ok()? {
        let (at, size) = (segment.p_offset.get(LE), segment.p_filesz.get(LE));
        ends.push(at.saturating_add(size));
    }
    let sections = header.sections(LE, file).ok()?;
    for section in sections.iter() {
        let range = section.file_range(LE);
        ends.extend(range.map(|(at, size)| at.saturating_add(size)));
    }
    let table = sections.len() as u64 * u64::from(header.e_shentsize.get(LE));
    ends.push(header.e_shoff.get(LE).saturating_add(table));
    ends.into_iter().max()
}

/// A section that is not loaded.
fn header_of(name: u32, kind: SectionType, at: u64, size: u64) -> Header {
    Header {
        sh_name: U32::new(LE, name),
        sh_type: U32::new(LE, kind),
        sh_flags: U64::new(LE, SectionFlags(0)),
        sh_addr: U64::new(LE, 0),
        sh_offset: U64::new(LE, at),
        sh_size: U64::new(LE, size),
        sh_link: U32::new(LE, 0),
        sh_info: U32::new(LE, 0),
        sh_addralign: U64::new(LE, u64::from(kind != elf::SHT_NULL)),
        sh_entsize: U64::new(LE, 0),
    }
}

/// A file that gets more sections.
struct Growing {
    bytes: Vec<u8>,
    sections: Vec<Header>,
    names: Vec<u8>,
}

impl Growing {
    fn of(file: &[u8]) -> Result<Self, FinalError> {
        let unfit = |_| FinalError::Unfit("its ELF headers cannot be read");
        let header = Elf::parse(file).map_err(unfit)?;
        let table = header.sections(LE, file).map_err(unfit)?;
        if table.section_by_name(LE, MANIFEST.as_bytes()).is_some() {
            return Err(FinalError::Unfit("it is a final image already"));
        }
        if carried(file) > 0 {
            return Err(FinalError::Unfit(CARRIES));
        }
        let mut growing = Growing {
            bytes: file.to_vec(),
            sections: table.iter().copied().collect(),
            names: vec![0],
        };
        if table.is_empty() {
            // Every table begins with an empty section.
            growing.sections.push(header_of(0, elf::SHT_NULL, 0, 0));
            return Ok(growing);
        }
        let names = header.shstrndx(LE, file).map_err(unfit)?;
        if let Some(names) = growing.sections.get(names as usize) {
            growing.names = names.data(LE, file).map_err(unfit)?.to_vec();
        }
        Ok(growing)
    }

    /// Adds a section; where its contents are.
    fn add(&mut self, name: &str, kind: SectionType, contents: &[u8]) -> Result<usize, FinalError> {
        let too_long = |_| FinalError::Unfit("its section names are too long");
        let name_at = u32::try_from(self.names.len()).map_err(too_long)?;
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(0);
        Ok(self.place(name_at, kind, contents))
    }

    fn place(&mut self, name: u32, kind: SectionType, contents: &[u8]) -> usize {
        let at = self.align();
        self.bytes.extend_from_slice(contents);
        let size = contents.len() as u64;
        self.sections.push(header_of(name, kind, at as u64, size));
        at
    }

    fn align(&mut self) -> usize {
        let at = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(at, 0);
        at
    }

    /// Writes the names and the table of sections, and leads the file's header to them.
    fn finish(mut self) -> Result<Vec<u8>, FinalError> {
        let too_many = |_| FinalError::Unfit("it has too many sections");
        let name_at = u32::try_from(self.names.len()).map_err(too_many)?;
        self.names.extend_from_slice(b".shstrtab\0");
        let names = std::mem::take(&mut self.names);
        self.place(name_at, elf::SHT_STRTAB, &names);
        let count = u16::try_from(self.sections.len()).map_err(too_many)?;
        if count >= elf::SHN_LORESERVE {
            return Err(FinalError::Unfit("it has too many sections"));
        }
        let table_at = self.align();
        for header in &self.sections {
            self.bytes.extend_from_slice(bytes_of(header));
        }
        let (header, _) = from_bytes_mut::<Elf>(&mut self.bytes)
            .map_err(|()| FinalError::Unfit("it is shorter than an ELF header"))?;
        header.e_shoff.set(LE, table_at as u64);
        header.e_shentsize.set(LE, size_of::<Header>() as u16);
        header.e_shnum.set(LE, count);
        header.e_shstrndx.set(LE, SymbolSection(count - 1));
        Ok(self.bytes)
    }
}
