//! Stacks on which no thread runs: those of coroutines that wait for their turn.
//!
//! A thread's way back ends where its stack begins. One that runs a coroutine has another way
//! back besides, on its own stack; and a coroutine that waits is on no thread's way. Both may
//! return into a function, so whoever has to know that nobody is inside it must know of them.
//!
//! Nothing in a process tells that some memory is a stack. So a program counts as one that has
//! coroutines if one of its files names what switches between stacks, and then no writable word
//! of its memory may be a way back into the function. Where all of them are made by libc's
//! `makecontext`, as OpenSSL's are, there is none before one word in memory leads to where these end.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use memchr::memmem;
use object::read::elf::{FileHeader, SectionHeader};
use object::{LittleEndian, ReadCache, ReadRef, elf};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::Process;
use crate::own_stack::{Live, is_left_over};
use crate::proc_file::Status;
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
/// Bytes of address space and of memory that are searched: all threads stand meanwhile.
const LARGEST: (u64, u64) = (64 << 30, 64 << 20);

/// What is known of files, by device and inode: processes have most of theirs in common.
static KNOWN: LazyLock<Mutex<HashMap<FileNumber, Switch>>> = LazyLock::new(Mutex::default);

type FileNumber = (i32, i32, u64);

/// Whether a file switches between stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Switch {
    No,
    /// Between those that it makes with libc's `makecontext`, and threads' own.
    Contexts,
    /// In a way of its own, or that is not known.
    Other,
}

/// What is known of a program before its threads stand.
#[derive(Clone, Debug)]
pub(crate) struct Coroutines {
    /// The file that makes it a program with coroutines.
    pub(crate) switcher: Option<String>,
    /// Where each of its coroutines returns to in the end; empty if that is not known.
    pub(crate) ends: Vec<u64>,
    /// It has more memory than is searched for them.
    pub(crate) too_large: bool,
}

impl Process {
    /// Whether this is a program with coroutines.
    pub(crate) fn find_coroutines(&self) -> Result<Coroutines, TargetError> {
        let (switch, switcher) = self.switches_stacks()?;
        let ends = match switch {
            Switch::Contexts => self.ends_of_contexts().unwrap_or_default(),
            Switch::No | Switch::Other => Vec::new(),
        };
        Ok(Coroutines {
            too_large: switcher.is_some() && self.is_too_large(),
            switcher,
            ends,
        })
    }

    /// The file that makes this a program with coroutines, if any does: of several that of which
    /// the least is known.
    fn switches_stacks(&self) -> Result<(Switch, Option<String>), TargetError> {
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
    fn ends_of_contexts(&self) -> Option<Vec<u64>> {
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

    /// True if what stands before `at` may be a call. Behind a function's end another one may begin.
    fn is_behind_a_call(&self, at: u64) -> bool {
        const LONGEST: usize = 7;
        let bytes = self
            .memory
            .read_some(LiveAddr(at.wrapping_sub(LONGEST as u64)), LONGEST);
        may_end_in_a_call(&bytes)
    }

    /// True if it has more memory of its own than is searched while its threads stand, as far as
    /// the kernel has counted it.
    fn is_too_large(&self) -> bool {
        let status = Status::of_thread(self.pid, self.pid);
        let own = status
            .field("RssAnon:")
            .and_then(|own| own.split(' ').next()?.parse().ok());
        own.is_some_and(|kb: u64| kb > LARGEST.1 >> 10)
    }

    /// A place that may be a way back into one of `ranges` on a stack on which none of `threads`
    /// runs, or why that is not known, while they all stand; `None` if there is none. Where it is
    /// known where coroutines end, `ends` of one must be in memory, too.
    pub(crate) fn find_suspended(
        &self,
        threads: &[Live],
        ranges: &[(String, Range<LiveAddr>)],
        ends: &[u64],
    ) -> Result<Option<(Option<String>, String)>, TargetError> {
        self.forget_maps();
        let writable = |map: &MemoryMap| {
            let open = MMPermissions::READ | MMPermissions::WRITE;
            map.perms.contains(open)
        };
        let maps = self.maps()?;
        let (mut found, mut ended) = (None, ends.is_empty());
        // Nearly every word is outside of all of them.
        let lowest = ranges.iter().map(|(_, range)| range.start.0).min();
        let highest = ranges.iter().map(|(_, range)| range.end.0).max();
        let (Some(lowest), Some(highest)) = (lowest, highest) else {
            return Ok(None);
        };
        let text = self.look_through(LARGEST, &writable, &mut |from, to| {
            let size = usize::try_from(to - from).unwrap_or(0);
            let bytes = self.memory.read_some(LiveAddr(from), size);
            if bytes.len() < size {
                return Ok(Some(format!("the memory at {from:#x} cannot be read")));
            }
            let words = bytes.chunks_exact(8).zip((from..).step_by(8));
            for (word, at) in words {
                let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
                ended |= ends.contains(&word);
                if (lowest..=highest).contains(&word)
                    && found.is_none()
                    && let Some((name, range)) =
                        ranges.iter().find(|(_, range)| returns_to(range, word))
                    && (word < range.end.0 || self.is_behind_a_call(word))
                    && !is_left_over(&maps, threads, at)
                {
                    found = Some((name.clone(), at));
                }
                if ended && let Some((_, at)) = &found {
                    return Ok(Some(format!(
                        "the memory at {at:#x} may be its way back there"
                    )));
                }
            }
            Ok(None)
        })?;
        Ok(text.map(|text| (found.map(|(inside, _)| inside), text)))
    }
}

/// True if a call in `range` may return to `at`. The first byte is where it begins, to which
/// tables of functions lead; a call that never returns may be the last instruction.
fn returns_to(range: &Range<LiveAddr>, at: u64) -> bool {
    range.start.0 < at && at <= range.end.0
}

/// True if `call` with a distance, or through a register or a place in memory, may be the last of
/// these seven bytes' instructions.
fn may_end_in_a_call(bytes: &[u8]) -> bool {
    let [.., _, _, _, _, _] = bytes else {
        return true;
    };
    let through = |before: usize| {
        let at = bytes.len().checked_sub(before);
        at.and_then(|at| bytes.get(at..at + 2))
            .is_some_and(|code| code[0] == 0xff && code[1] >> 3 & 7 == 2)
    };
    bytes[bytes.len() - 5] == 0xe8 || [2, 3, 4, 6, 7].into_iter().any(through)
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
    fn a_way_back_is_behind_a_call() {
        let range = LiveAddr(0x100)..LiveAddr(0x200);
        let answers = [0xff, 0x100, 0x101, 0x200, 0x201].map(|at| returns_to(&range, at));
        assert_eq!(answers, [false, false, true, true, false]);
    }

    #[test]
    fn a_call_may_be_what_ends_a_function() {
        let ends = |bytes: &[u8]| may_end_in_a_call(bytes);
        assert!(
            ends(&[0x90, 0x90, 0xe8, 1, 2, 3, 4])
                && ends(&[0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0])
        );
        assert!(ends(&[0x90, 0xff, 0x15, 1, 2, 3, 4]) && ends(&[0xff, 0x94, 0x24, 1, 2, 3, 4]));
        assert!(!ends(&[0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xc3]));
        // What cannot be read may be anything.
        assert!(ends(&[]));
    }

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
