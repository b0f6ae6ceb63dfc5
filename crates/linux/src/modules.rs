//! Images that the process has loaded, read from its own memory: the file on disk may
//! be another one by now.

use std::borrow::Cow;

use invivo_apply::{Module, TargetError};
use invivo_image::LiveAddr;
use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::pod::slice_from_all_bytes;
use object::read::elf::{FileHeader, ProgramHeader};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::Process;
use crate::mapped::read_all;
use crate::memory::Memory;

type Elf = FileHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;
/// ELF header, program headers and notes lie in the first page of every linker's
/// output; two are read for those that are generous.
const HEAD: usize = 0x2000;
const PROGRAM: usize = size_of::<ProgramHeader64<LittleEndian>>();

/// A loaded image's headers.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// What is added to link addresses.
    pub(crate) bias: u64,
    /// Link address of the first page.
    pub(crate) first: u64,
    pub(crate) end: LiveAddr,
    pub(crate) path: String,
    pub(crate) build_id: Option<Noted>,
    /// `PT_GNU_EH_FRAME`, live.
    pub(crate) eh_frame_hdr: Option<(LiveAddr, u64)>,
    /// `PT_LOAD` ranges, live.
    pub(crate) segments: Vec<(LiveAddr, LiveAddr)>,
}

impl Loaded {
    /// Where its first page is.
    pub(crate) fn start(&self) -> u64 {
        self.first.wrapping_add(self.bias)
    }
}

impl Process {
    /// The file that a loaded image came from, if it can be read and is still that file.
    pub(crate) fn file_of(&self, maps: &[MemoryMap], loaded: &Loaded) -> Option<Vec<u8>> {
        let start = loaded.start();
        let mut maps = maps.iter();
        let map = maps.find(|map| map.offset == 0 && map.address.0 == start)?;
        read_all(&self.open_mapped(map)?)
    }

    /// All loaded images, the vDSO among them.
    pub(crate) fn loaded(&self) -> Result<Vec<Loaded>, TargetError> {
        let maps = self.maps()?;
        let mut found: Vec<Loaded> = Vec::new();
        for map in maps.iter() {
            let path = match &map.pathname {
                MMapPath::Path(path) => path.to_string_lossy().into_owned(),
                MMapPath::Vdso => "[vdso]".to_owned(),
                _ => continue,
            };
            // lld puts all segments of a small program into the first page of the file, which
            // is mapped once for each then.
            let is_inside = found.last().is_some_and(|image| {
                image.path == path && (image.start()..image.end.0).contains(&map.address.0)
            });
            if map.offset != 0 || !map.perms.contains(MMPermissions::READ) || is_inside {
                continue;
            }
            let head = self.memory.read_some(LiveAddr(map.address.0), HEAD);
            found.extend(parse_head(&self.memory, &head, map.address.0, path));
        }
        Ok(found)
    }

    /// True if the first page of an image with this build id is at `start`.
    pub(crate) fn has_image(&self, start: LiveAddr, build_id: &[u8]) -> Result<bool, TargetError> {
        let is_head = |map: &MemoryMap| map.address.0 == start.0 && map.offset == 0;
        let is_there = self.maps()?.iter().any(is_head);
        let found = || build_id_at(&self.memory, start.0);
        Ok(is_there && found().is_some_and(|found| found == build_id))
    }

    pub(crate) fn modules_with_build_id(&self) -> Result<Vec<Module>, TargetError> {
        let loaded = self.loaded()?.into_iter();
        Ok(loaded
            .filter_map(|image| {
                let start = LiveAddr(image.start());
                Some(Module {
                    build_id: image.build_id?.id,
                    start,
                    end: image.end,
                    path: image.path,
                })
            })
            .collect())
    }
}

/// The build id of the image whose first page is at `start`.
pub(crate) fn build_id_at(memory: &Memory, start: u64) -> Option<Vec<u8>> {
    let head = memory.read_some(LiveAddr(start), HEAD);
    Some(
        parse_head(memory, &head, start, String::new())?
            .build_id?
            .id,
    )
}

/// A build id, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    pub(crate) id: Vec<u8>,
    /// Behind the start of the image's first page.
    pub(crate) offset: u64,
}

/// What the first page of a mapped file says of it.
pub(crate) enum Head {
    /// It has a build id.
    Image(Noted),
    /// It is no image, or one without.
    Other,
    /// It cannot be read.
    Unread,
}

impl Head {
    pub(crate) fn at(memory: &Memory, start: u64) -> Head {
        let first = memory.read_some(LiveAddr(start), elf::ELFMAG.len());
        if first.is_empty() {
            return Head::Unread;
        }
        // Most files that are no images are larger than those.
        if first != elf::ELFMAG {
            return Head::Other;
        }
        let head = memory.read_some(LiveAddr(start), HEAD);
        let loaded = parse_head(memory, &head, start, String::new());
        match loaded.and_then(|loaded| loaded.build_id) {
            Some(noted) => Head::Image(noted),
            None if head.is_empty() => Head::Unread,
            None => Head::Other,
        }
    }
}

fn parse_head(memory: &Memory, head: &[u8], start: u64, path: String) -> Option<Loaded> {
    let header = Elf::parse(head).ok()?;
    let table = program_headers(memory, header, head, start)?;
    let programs: &[ProgramHeader64<_>] =
        slice_from_all_bytes(table.get(..table.len() / PROGRAM * PROGRAM)?).ok()?;
    let loads = || programs.iter().filter(|p| p.p_type(LE) == elf::PT_LOAD);
    let first = loads().map(|p| p.p_vaddr(LE)).min()? & !0xfff;
    let bias = start.wrapping_sub(first);
    let live = |at: u64| LiveAddr(at.wrapping_add(bias));
    let last = loads()
        .filter_map(|p| p.p_vaddr(LE).checked_add(p.p_memsz(LE)))
        .max()?;
    let of_type = |kind| {
        programs
            .iter()
            .find(move |p: &&ProgramHeader64<_>| p.p_type(LE) == kind)
    };
    let eh_frame_hdr = of_type(elf::PT_GNU_EH_FRAME).map(|p| (live(p.p_vaddr(LE)), p.p_memsz(LE)));
    let notes = programs.iter().filter(|p| p.p_type(LE) == elf::PT_NOTE);
    let build_id = notes
        .filter_map(|p| build_id(memory, live(p.p_vaddr(LE)), start, p))
        .next();
    Some(Loaded {
        bias,
        first,
        end: live(last),
        path,
        build_id,
        eh_frame_hdr,
        segments: loads()
            .filter_map(|p| {
                let end = p.p_vaddr(LE).checked_add(p.p_memsz(LE))?;
                Some((live(p.p_vaddr(LE)), live(end)))
            })
            .collect(),
    })
}

/// The bytes of the program headers. A file that got more of them than it had room for has them
/// behind everything else, as far from its start in memory as in the file.
fn program_headers<'h>(
    memory: &Memory,
    header: &Elf,
    head: &'h [u8],
    start: u64,
) -> Option<Cow<'h, [u8]>> {
    let (at, count) = (header.e_phoff.get(LE), header.e_phnum.get(LE));
    if usize::from(header.e_phentsize.get(LE)) != PROGRAM {
        return None;
    }
    let size = usize::from(count) * PROGRAM;
    let inside = usize::try_from(at).ok();
    if let Some(table) = inside.and_then(|at| head.get(at..)?.get(..size)) {
        return Some(Cow::Borrowed(table));
    }
    let table = memory.read_some(LiveAddr(start.checked_add(at)?), size);
    (table.len() == size).then_some(Cow::Owned(table))
}

fn build_id(
    memory: &Memory,
    at: LiveAddr,
    start: u64,
    program: &ProgramHeader64<LittleEndian>,
) -> Option<Noted> {
    const LARGEST: u64 = 0x1_0000;
    let size = usize::try_from(program.p_memsz(LE).min(LARGEST)).ok()?;
    let bytes = memory.read_some(at, size);
    let align = program.p_align(LE);
    let mut notes = object::read::elf::NoteIterator::<Elf>::new(LE, align, &bytes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
            let id = note.desc().to_vec();
            // Wherever the same bytes stand first, they are the same.
            let inside = memchr::memmem::find(&bytes, &id)? as u64;
            let offset = at.0.checked_sub(start)?.checked_add(inside)?;
            return Some(Noted { id, offset });
        }
    }
    None
}
