//! Reading an ELF image into the view.

pub(crate) mod debug_files;
mod imports;
mod kept;
mod slots;
pub(crate) mod symbols;

use std::sync::Arc;

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::SectionIndex;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};

use crate::model::{BuildId, Image, Link, Machine, Section, SectionKind, Segment};
use crate::plt::find_stubs;
use crate::{ImageError, LinkAddr, UnwindTable};

pub(crate) type Elf = FileHeader64<LittleEndian>;
pub(crate) const LE: LittleEndian = LittleEndian;

/// Turns a reader's error into ours, with the structure that was being read.
fn broken(what: &'static str) -> impl Fn(object::read::Error) -> ImageError {
    move |source| ImageError::Broken { what, source }
}

impl Image {
    /// Reads a linked x86-64 ELF program or library.
    ///
    /// `debug` is its separate debug file (see [`Image::attach_debug`]).
    ///
    /// # Errors
    /// When the bytes are not such an image, are broken, or when `debug`
    /// belongs to another build.
    pub fn parse(file: Arc<[u8]>, debug: Option<&[u8]>) -> Result<Image, ImageError> {
        let data = &file[..];
        if !data.starts_with(&elf::ELFMAG) {
            return Err(ImageError::NotElf);
        }
        let header = Elf::parse(data).map_err(|_| {
            ImageError::Unsupported("an ELF file that is not 64-bit little-endian".to_owned())
        })?;
        if header.e_machine(LE) != elf::EM_X86_64 {
            let machine = header.e_machine(LE).0;
            return Err(ImageError::Unsupported(format!(
                "machine {machine} (x86-64 is 62)"
            )));
        }
        let link = match header.e_type(LE) {
            elf::ET_EXEC => Link::Fixed,
            elf::ET_DYN => Link::PositionIndependent,
            elf::ET_REL => {
                return Err(ImageError::Unsupported(
                    "an object file that is not linked".to_owned(),
                ));
            }
            other => {
                return Err(ImageError::Unsupported(format!(
                    "an ELF file of type {}",
                    other.0
                )));
            }
        };
        let segments = read_segments(header, data)?;
        let Some(first) = segments.iter().map(|s| s.range.start.0).min() else {
            return Err(ImageError::Inconsistent("no PT_LOAD segment".to_owned()));
        };
        let table = header
            .sections(LE, data)
            .map_err(broken("section headers"))?;
        let mut image = Image {
            file: Arc::clone(&file),
            debug_file: None,
            supplementary_file: None,
            split_files: Vec::new(),
            machine: Machine::X86_64,
            link,
            build_id: read_build_id(header, data)?,
            base: LinkAddr(first & !0xfff),
            segments,
            sections: read_sections(&table)?,
            entities: Vec::new(),
            starts: Vec::new(),
            starts_index: Default::default(),
            thread_locals: Vec::new(),
            tls_block: tls_block(header, data)?,
            relative_words: Default::default(),
            handling: Vec::new(),
            edges: Default::default(),
            slots: Default::default(),
            stubs: Default::default(),
            lazy: Default::default(),
            code_relocations: Default::default(),
            relocations_kept: false,
            needed: Vec::new(),
            soname: None,
            imports: Default::default(),
            is_library: link == Link::PositionIndependent,
            unwind: UnwindTable::default(),
            guard_flags: 0,
            has_symbols: false,
            names_locals: false,
            pdb: None,
            annexes: Vec::new(),
        };
        slots::read(&mut image, data, &table)?;
        imports::read(&mut image, data, &table)?;
        image.stubs = find_stubs(&image);
        symbols::read(&mut image, (data, &table), (data, &table))?;
        image.unwind = UnwindTable::parse(&image)?;
        if let Some(debug) = debug {
            image.attach_debug(Arc::from(debug))?;
        }
        Ok(image)
    }
}

fn read_segments(header: &Elf, data: &[u8]) -> Result<Vec<Segment>, ImageError> {
    let mut segments = Vec::new();
    for program in header
        .program_headers(LE, data)
        .map_err(broken("program headers"))?
    {
        if program.p_type(LE) != elf::PT_LOAD {
            continue;
        }
        let start = LinkAddr(program.p_vaddr(LE));
        let end = start
            .checked_add(program.p_memsz(LE))
            .ok_or_else(|| ImageError::Inconsistent("a segment wraps around".to_owned()))?;
        let (offset, size) = program.file_range(LE);
        let file_end = offset
            .checked_add(size)
            .filter(|end| usize::try_from(*end).is_ok_and(|end| end <= data.len()))
            .ok_or_else(|| ImageError::Inconsistent("a segment ends behind the file".to_owned()))?;
        segments.push(Segment {
            range: start..end,
            file: offset..file_end,
            executable: program.p_flags(LE).contains(elf::PF_X),
            writable: program.p_flags(LE).contains(elf::PF_W),
        });
    }
    Ok(segments)
}

/// The distance from the start of a thread's block to its thread pointer.
fn tls_block(header: &Elf, data: &[u8]) -> Result<u64, ImageError> {
    let programs = header
        .program_headers(LE, data)
        .map_err(broken("program headers"))?;
    let Some(tls) = programs.iter().find(|p| p.p_type(LE) == elf::PT_TLS) else {
        return Ok(0);
    };
    tls.p_memsz(LE)
        .checked_next_multiple_of(tls.p_align(LE).max(1))
        .ok_or_else(|| ImageError::Inconsistent("PT_TLS wraps around".to_owned()))
}

fn read_build_id(header: &Elf, data: &[u8]) -> Result<Option<BuildId>, ImageError> {
    for program in header
        .program_headers(LE, data)
        .map_err(broken("program headers"))?
    {
        // A debug file keeps the headers of segments whose bytes it does not hold.
        let Ok(Some(mut notes)) = program.notes(LE, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                return Ok(Some(BuildId(note.desc().to_vec())));
            }
        }
    }
    let table = header
        .sections(LE, data)
        .map_err(broken("section headers"))?;
    for section in table.iter() {
        let Ok(Some(mut notes)) = section.notes(LE, data) else {
            continue;
        };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                return Ok(Some(BuildId(note.desc().to_vec())));
            }
        }
    }
    Ok(None)
}

pub(crate) fn section_kind(name: &str, flags: elf::SectionFlags) -> SectionKind {
    let is = |prefix: &str| name == prefix || name.starts_with(&format!("{prefix}."));
    if flags.contains(elf::SHF_TLS) {
        SectionKind::Tls
    } else if flags.contains(elf::SHF_EXECINSTR) {
        SectionKind::Text
    } else if is(".got") || name == ".dynamic" {
        SectionKind::Got
    } else if !flags.contains(elf::SHF_WRITE) || is(".data.rel.ro") {
        SectionKind::ReadOnly
    } else {
        SectionKind::Data
    }
}

fn read_sections(table: &SectionTable<'_, Elf>) -> Result<Vec<Section>, ImageError> {
    let mut sections = Vec::new();
    for (index, header) in table.enumerate() {
        if index == SectionIndex(0) || !header.sh_flags(LE).contains(elf::SHF_ALLOC) {
            continue;
        }
        let name = table
            .section_name(LE, header)
            .map_err(broken("section name"))?;
        let name = String::from_utf8_lossy(name).into_owned();
        let start = LinkAddr(header.sh_addr(LE));
        let end = start
            .checked_add(header.sh_size(LE))
            .ok_or_else(|| ImageError::Inconsistent(format!("section {name} wraps around")))?;
        let flags = header.sh_flags(LE);
        let no_bits = header.sh_type(LE) == elf::SHT_NOBITS;
        // `.tbss` takes no room in the image: its addresses are those of what follows.
        if end == start || (no_bits && flags.contains(elf::SHF_TLS)) {
            continue;
        }
        let bytes = match header.file_range(LE) {
            None => 0..0,
            Some((offset, size)) => usize::try_from(offset)
                .ok()
                .zip(
                    offset
                        .checked_add(size)
                        .and_then(|end| usize::try_from(end).ok()),
                )
                .map(|(start, end)| start..end)
                .ok_or_else(|| ImageError::Inconsistent(format!("section {name} wraps around")))?,
        };
        sections.push(Section {
            kind: section_kind(&name, flags),
            name,
            range: start..end,
            bytes,
        });
    }
    sections.sort_by_key(|s| s.range.start);
    if let Some(pair) = sections
        .windows(2)
        .find(|pair| pair[0].range.end > pair[1].range.start)
    {
        let text = format!("sections {} and {} overlap", pair[0].name, pair[1].name);
        return Err(ImageError::Inconsistent(text));
    }
    Ok(sections)
}
