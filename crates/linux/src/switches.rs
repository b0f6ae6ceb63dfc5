//! Which files of a program switch between stacks, by the names in them, and where coroutines end
//! that libc makes.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use memchr::memmem;
use object::read::elf::{FileHeader, SectionHeader};
use object::{LittleEndian, ReadCache, ReadRef, elf};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::Process;
use crate::target::find_symbol;

/// Names, or parts of them, of what switches between stacks; a zero is where the name ends. It may
/// begin in the middle of another one, as linkers put names with one end into one place. The first
/// are libc's own, which only count where another file uses them.
const SWITCHES: [&[u8]; 16] = [
    b"makecontext\0",
    b"swapcontext\0",
    b"setcontext\0",
    // Boost, and what has copied it: PHP, HHVM, brpc, tbox.
    b"jump_fcontext",
    b"ontop_fcontext",
    b"swap_fcontext",
    // libcoro, Ruby, libaco, libco (two of that name), MariaDB, State Threads, libucontext.
    b"coro_transfer\0",
    b"coroutine_transfer",
    b"acosw\0",
    b"co_switch\0",
    b"coctx_swap\0",
    b"my_context_spawn\0",
    b"_st_md_cxt_restore\0",
    b"libucontext_swapcontext",
    // Python's greenlet, and Rust's corosensei.
    b"slp_switch",
    b"corosensei",
];
/// How many of them libc has itself, and the one of them that makes a stack one of a coroutine.
const OF_LIBC: usize = 3;
const MAKES: &[u8] = SWITCHES[0];
/// Bytes of `makecontext` that are read at most.
const LONGEST_FUNCTION: u64 = 1 << 16;
/// Where a file's tables of names are longer together, in bytes, they are not read: it may switch.
const LONGEST: u64 = 256 << 20;

/// What is known of files, by device and inode: processes have most of theirs in common.
static KNOWN: LazyLock<Mutex<HashMap<FileNumber, Switch>>> = LazyLock::new(Mutex::default);

type FileNumber = (i32, i32, u64);

/// Whether a file switches between stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Switch {
    No,
    /// Between those that it makes with libc's `makecontext`, and threads' own.
    Contexts,
    /// In a way of its own, or that is not known.
    Other,
}

impl Process {
    /// The file that makes this a program with coroutines, if any does: of several that of which
    /// the least is known.
    pub(crate) fn switches_stacks(&self) -> Result<(Switch, Option<String>), TargetError> {
        let maps = self.maps()?;
        // Shared memory has a path as well, and devices and files of data have.
        let code: BTreeSet<FileNumber> = maps
            .iter()
            .filter(|map| map.perms.contains(MMPermissions::EXECUTE))
            .map(number_of)
            .collect();
        let is_start = |map: &&MemoryMap| map.offset == 0 && code.contains(&number_of(map));
        let mut most = (Switch::No, None);
        for map in maps.iter().filter(is_start) {
            let MMapPath::Path(path) = &map.pathname else {
                continue;
            };
            let file = number_of(map);
            let known = KNOWN
                .lock()
                .ok()
                .and_then(|known| known.get(&file).copied());
            let switch = known.unwrap_or_else(|| {
                let (switch, whole) = self.switch_of(map, path);
                // Other processes may have what this one could not show any more.
                if whole && let Ok(mut known) = KNOWN.lock() {
                    known.insert(file, switch);
                }
                switch
            });
            if switch > most.0 {
                most = (switch, Some(path.display().to_string()));
            }
        }
        Ok(most)
    }

    /// What the file of this mapping names. Of one that is gone there is only what was mapped,
    /// which has the names that it imports and exports. Also whether all of it could be read:
    /// a process that ends shows nothing.
    fn switch_of(&self, map: &MemoryMap, path: &Path) -> (Switch, bool) {
        let is_libc = is_libc(path);
        let magic = self.memory.read_some(LiveAddr(map.address.0), 4);
        if magic.is_empty() {
            return (Switch::Other, false);
        }
        if magic != elf::ELFMAG {
            return (Switch::No, true);
        }
        match self.open_mapped(map) {
            Some(file) => {
                let switch = switch_in_file(file, is_libc);
                (switch.unwrap_or(Switch::Other), switch.is_ok())
            }
            None => {
                let size = (map.address.1 - map.address.0).min(LONGEST);
                let size = usize::try_from(size).unwrap_or(0);
                let bytes = self.memory.read_some(LiveAddr(map.address.0), size);
                (switch_named(&bytes, is_libc), bytes.len() == size)
            }
        }
    }

    /// Where coroutines that libc's `makecontext` makes return to when they end: it writes one
    /// address of code at the beginning of their stacks. Whatever address of code it takes is
    /// taken for that one.
    pub(crate) fn ends_of_contexts(&self) -> Option<Vec<u64>> {
        let maps = self.maps().ok()?;
        let libc = self.loaded().ok()?;
        let libc = libc.iter().find(|one| is_libc(Path::new(&one.path)))?;
        let file = self.file_of(&maps, libc)?;
        let (at, size) = find_symbol(&file, b"makecontext")?;
        let at = at.wrapping_add(libc.bias);
        let size = usize::try_from(size.min(LONGEST_FUNCTION)).ok()?;
        let code = self.memory.read_some(LiveAddr(at), size);
        let is_code = |to: u64| {
            let there = |map: &MemoryMap| (map.address.0..map.address.1).contains(&to);
            let map = maps.iter().find(|map| there(map));
            map.is_some_and(|map| map.perms.contains(MMPermissions::EXECUTE))
        };
        Some(
            addresses_taken(&code, at)
                .filter(|to| is_code(*to))
                .collect(),
        )
    }
}

fn number_of(map: &MemoryMap) -> FileNumber {
    (map.dev.0, map.dev.1, map.inode)
}

/// What the names in a file's tables say; a file without tables may do anything. Files that are no
/// ELF files have no coroutines.
fn switch_in_file(file: File, is_libc: bool) -> Result<Switch, object::read::Error> {
    let cache = ReadCache::new(file);
    let data = &cache;
    if !matches!(data.read_bytes_at(0, 4), Ok(magic) if *magic == elf::ELFMAG) {
        return Ok(Switch::No);
    }
    let header = elf::FileHeader64::<LittleEndian>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    if sections.is_empty() {
        return Ok(Switch::Other);
    }
    let (mut all, mut most) = (0_u64, Switch::No);
    let tables = sections.iter();
    for table in tables.filter(|table| table.sh_type(endian) == elf::SHT_STRTAB) {
        all = all.saturating_add(table.sh_size(endian));
        if all > LONGEST {
            return Ok(Switch::Other);
        }
        most = most.max(switch_named(table.data(endian, data)?, is_libc));
    }
    Ok(most)
}

fn switch_named(names: &[u8], is_libc: bool) -> Switch {
    let named = |name: &[u8]| memmem::find(names, name).is_some();
    let (of_libc, others) = SWITCHES.split_at(OF_LIBC);
    if others.iter().any(|name| named(name)) {
        return Switch::Other;
    }
    if is_libc || !of_libc.iter().any(|name| named(name)) {
        return Switch::No;
    }
    // A name that only ends so is of something else.
    let is_whole = |at: usize| at.checked_sub(1).is_none_or(|before| names[before] == 0);
    let all_whole = |name: &&[u8]| memmem::find_iter(names, name).all(is_whole);
    if named(MAKES) && of_libc.iter().all(all_whole) {
        Switch::Contexts
    } else {
        Switch::Other
    }
}

/// What `lea` takes the address of in code that lies at `start`, among other places perhaps: the code
/// is not decoded.
fn addresses_taken(code: &[u8], start: u64) -> impl Iterator<Item = u64> {
    const LENGTH: usize = 7;
    let lea = move |(at, bytes): (usize, &[u8])| {
        let [0x48 | 0x4c, 0x8d, operand, distance @ ..] = bytes else {
            return None;
        };
        let distance = i32::from_le_bytes(distance.try_into().ok()?);
        let next = start.wrapping_add((at + LENGTH) as u64);
        (operand & 0xc7 == 5).then(|| next.wrapping_add_signed(distance.into()))
    };
    code.windows(LENGTH).enumerate().filter_map(lea)
}

/// True for the library that has [`OF_LIBC`] itself: `libc.so.6`, once `libc-2.31.so`.
fn is_libc(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("libc.so.6") || name.starts_with("libc-2.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libc_has_what_others_use() {
        let names = b"\0puts\0swapcontext\0";
        let of = |names: &[u8]| switch_named(names, false);
        assert_eq!(
            (of(names), switch_named(names, true)),
            (Switch::Other, Switch::No)
        );
        let names = b"\0_ZN10corosensei5fiber\0";
        assert_eq!(switch_named(names, true), Switch::Other);
        // A library that exports `my_swapcontext` and uses `swapcontext` has one place for both.
        assert_eq!(of(b"\0my_swapcontext\0"), Switch::Other);
        assert_eq!(of(b"\0swapcontext2\0"), Switch::No);
        // Who makes contexts with libc has no others, unless another name says so.
        assert_eq!(of(b"\0makecontext\0"), Switch::Contexts);
        assert_eq!(of(b"\0makecontext\0swapcontext\0"), Switch::Contexts);
        assert_eq!(of(b"\0makecontext\0my_swapcontext\0"), Switch::Other);
        assert_eq!(of(b"\0makecontext\0jump_fcontext\0"), Switch::Other);
        let paths = [
            "/usr/lib/libc.so.6",
            "/lib/libc-2.31.so (deleted)",
            "/opt/libc.so.6.d/x",
        ];
        assert_eq!(
            paths.map(|path| is_libc(Path::new(path))),
            [true, true, false]
        );
    }

    #[test]
    fn this_program_has_no_coroutines_and_what_is_no_program_neither() {
        let file = |path: &str| File::open(path).expect("it is there");
        let own = std::env::current_exe().expect("it runs");
        // Its own table of names has no name from the list as a symbol.
        let is = |file: File, is_libc: bool| switch_in_file(file, is_libc).expect("it is read");
        assert_eq!(is(file("/proc/self/status"), false), Switch::No);
        let libc = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let libc = libc.lines().find_map(|line| {
            line.split_once('/')
                .filter(|(_, path)| path.ends_with("libc.so.6"))
        });
        let libc = format!("/{}", libc.expect("the tests use libc").1);
        assert_eq!(is(file(&libc), true), Switch::No);
        assert_ne!(is(file(&libc), false), Switch::No);
        assert_eq!(is(file(&own.to_string_lossy()), false), Switch::No);
    }

    #[test]
    fn where_contexts_end_is_known() {
        let code = [
            0x90, 0x48, 0x8d, 0x3d, 0xf8, 0xff, 0xff, 0xff, 0x4c, 0x8d, 0x44, 0x24, 8, 0xc3,
        ];
        assert_eq!(addresses_taken(&code, 0x1000).collect::<Vec<_>>(), [0x1000]);
        // This process has libc's `makecontext`, which takes the address of one function.
        let own = Process::open(std::process::id().cast_signed(), crate::Access::Read)
            .expect("it is this one");
        assert_eq!(own.ends_of_contexts().expect("libc has it").len(), 1);
    }
}
