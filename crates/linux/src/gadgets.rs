//! Pieces of the target's own code with which it makes system calls for us.

use std::collections::BTreeMap;
use std::sync::Mutex;

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use memchr::memmem;
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::Process;

const SYSCALL: &[u8] = &[0x0f, 0x05];
const SYSCALL_RET: &[u8] = &[0x0f, 0x05, 0xc3];
/// `mov rax, 15; syscall`, and the form with `eax`.
const RESTORERS: [&[u8]; 2] = [
    &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05],
    &[0xb8, 15, 0, 0, 0, 0x0f, 0x05],
];
const POP_RAX_RET: &[u8] = &[0x58, 0xc3];
/// More bytes than any of them has.
const LONGEST: usize = 16;

/// Device, inode and offset of a mapping.
type FilePart = ((i32, i32), u64, u64);
/// What was found in files, as offsets from the mapping's start.
static KNOWN: Mutex<BTreeMap<FilePart, Found>> = Mutex::new(BTreeMap::new());

/// Places of code in a mapping, as far as it has them.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    syscall: Option<u64>,
    /// Where it begins and ends.
    restorer: Option<(u64, u64)>,
    pop: Option<u64>,
}

impl Found {
    fn or(self, other: Found) -> Found {
        Found {
            syscall: self.syscall.or(other.syscall),
            restorer: self.restorer.or(other.restorer),
            pop: self.pop.or(other.pop),
        }
    }

    fn map(self, place: impl Fn(u64) -> u64) -> Found {
        Found {
            syscall: self.syscall.map(&place),
            restorer: self.restorer.map(|(at, end)| (place(at), place(end))),
            pop: self.pop.map(&place),
        }
    }

    fn gadgets(self) -> Option<Gadgets> {
        let restorer = self.restorer;
        let restorer = restorer.map(|(at, end)| WayBack::Restorer(at, end));
        Some(Gadgets {
            syscall: self.syscall?,
            way_back: restorer.or(self.pop.map(WayBack::PopRax))?,
        })
    }
}

/// Pieces of the target's own code that are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gadgets {
    /// `syscall; ret`.
    pub(crate) syscall: u64,
    /// How a thread comes to call `rt_sigreturn`.
    pub(crate) way_back: WayBack,
}

/// Code that leads a thread to `rt_sigreturn`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WayBack {
    /// libc's own return from signal handlers: where it is, and the first byte behind it.
    Restorer(u64, u64),
    /// `pop rax; ret`, in a program without handlers that has none; then `syscall`.
    PopRax(u64),
}

impl Gadgets {
    /// What stands right before the state of a thread that is on its way.
    pub(crate) fn way_back(&self) -> u64 {
        match self.way_back {
            WayBack::Restorer(at, _) => at,
            WayBack::PopRax(_) => self.syscall,
        }
    }

    /// Where a function's return leads that was called for us.
    pub(crate) fn first_step_back(&self) -> u64 {
        match self.way_back {
            WayBack::Restorer(at, _) | WayBack::PopRax(at) => at,
        }
    }

    /// The first byte behind the instruction that calls `rt_sigreturn`.
    pub(crate) fn behind_the_return(&self) -> u64 {
        match self.way_back {
            WayBack::Restorer(_, end) => end,
            WayBack::PopRax(_) => self.behind_a_call(),
        }
    }

    /// The first byte behind the instruction that makes a call.
    pub(crate) fn behind_a_call(&self) -> u64 {
        self.syscall + 2
    }
}

impl Process {
    /// Finds the code to run, once; the target's libc has it, or the program itself.
    pub(crate) fn gadgets(&self) -> Result<Gadgets, TargetError> {
        let found = match self.gadgets.get() {
            Some(found) => *found,
            None => {
                let found = self.find_gadgets()?;
                *self.gadgets.get_or_init(|| found)
            }
        };
        found.ok_or_else(|| {
            TargetError::Unsupported(format!(
                "process {} has no code with which a system call could be made",
                self.pid
            ))
        })
    }

    fn find_gadgets(&self) -> Result<Option<Gadgets>, TargetError> {
        let mut found = Found::default();
        let maps = self.maps()?;
        let is_text = |map: &&MemoryMap| {
            let open = MMPermissions::READ | MMPermissions::EXECUTE;
            map.perms.contains(open) && matches!(map.pathname, MMapPath::Path(_))
        };
        let in_place = maps
            .iter()
            .enumerate()
            .filter(|(n, _)| is_in_place(&maps, *n));
        let mut texts: Vec<&MemoryMap> = in_place.map(|(_, map)| map).filter(is_text).collect();
        // The loader and libc first: each has both, and the loader is small.
        texts.sort_by_key(|map| match &map.pathname {
            MMapPath::Path(path) if path.to_string_lossy().contains("/ld-") => 0,
            MMapPath::Path(path) if path.to_string_lossy().contains("libc") => 1,
            _ => 2,
        });
        for map in &texts {
            found = found.or(self.search(map));
            if found.syscall.is_some() && found.restorer.is_some() {
                break;
            }
        }
        let gadgets = found.gadgets();
        // Of a process that ended since, or became another program, nothing can be read any more.
        let is_there = |map: &&MemoryMap| !self.read_any(map.address.0, 1).is_empty();
        if gadgets.is_none() && !texts.iter().any(is_there) {
            return Err(TargetError::Gone(self.pid));
        }
        Ok(gadgets)
    }

    fn read_any(&self, at: u64, size: usize) -> Vec<u8> {
        self.memory.read_some(LiveAddr(at), size)
    }

    /// What is in a mapping. Processes have most of their files in common, so that a place
    /// is looked for once in each, and then only looked at.
    fn search(&self, map: &MemoryMap) -> Found {
        let start = map.address.0;
        let file = (map.dev, map.inode, map.offset);
        let known = KNOWN
            .lock()
            .ok()
            .and_then(|known| known.get(&file).copied());
        if let Some(known) = known.map(|known| known.map(|offset| start.wrapping_add(offset)))
            && self.still_has(&known)
        {
            return known;
        }
        let (mut found, mut whole) = (Found::default(), true);
        for (start, size) in pieces(map.address) {
            let bytes = self.read_any(start, size);
            whole &= bytes.len() == size;
            found = found.or(within(&bytes).map(|at| start + at));
            if found.syscall.is_some() && found.restorer.is_some() {
                break;
            }
        }
        // Other processes may have what this one could not show any more.
        if whole && let Ok(mut known) = KNOWN.lock() {
            known.insert(file, found.map(|at| at.wrapping_sub(start)));
        }
        found
    }

    /// True if the code of another process with the same file is here as well.
    fn still_has(&self, found: &Found) -> bool {
        let has = |place: Option<u64>, codes: &[&[u8]]| {
            place.is_none_or(|at| {
                let bytes = self.read_any(at, LONGEST);
                codes.iter().any(|code| bytes.starts_with(code))
            })
        };
        has(found.syscall, &[SYSCALL_RET])
            && has(found.restorer.map(|(at, _)| at), &RESTORERS)
            && has(found.pop, &[POP_RAX_RET])
    }
}

/// True if the mapping with this number is behind the start of its own image. Text that is kept for
/// a while at another place (see `invivo_apply`) must not be run there: it is moved by these very
/// calls.
fn is_in_place(maps: &[MemoryMap], number: usize) -> bool {
    let file = |map: &MemoryMap| (map.dev, map.inode);
    let Some(own) = maps.get(number).map(file) else {
        return false;
    };
    let before = maps.iter().take(number + 1).rev();
    before
        .take_while(|map| file(map) == own)
        .any(|map| map.offset == 0)
}

/// What is in a piece of text, which is gone through once for all that has a `syscall` in it.
fn within(text: &[u8]) -> Found {
    let mut found = Found::default();
    for at in memmem::find_iter(text, SYSCALL) {
        let end = at + SYSCALL.len();
        if text[at..].starts_with(SYSCALL_RET) {
            found.syscall = found.syscall.or(Some(at as u64));
        }
        if let Some(code) = RESTORERS.iter().find(|code| text[..end].ends_with(code)) {
            let place = ((end - code.len()) as u64, end as u64);
            found.restorer = found.restorer.or(Some(place));
        }
        if found.syscall.is_some() && found.restorer.is_some() {
            return found;
        }
    }
    found.pop = memmem::find(text, POP_RAX_RET).map(|at| at as u64);
    found
}

/// Bytes of text that are read at a time. New memory costs more than one more call to read.
const PIECE: usize = 32 << 10;

/// Where pieces of text start, and how many bytes each has. What is looked for lies near
/// the start of a libc, so that most of it need not be read; each piece goes on a little
/// into the next one, or what lies across their border would be missed.
fn pieces((start, end): (u64, u64)) -> impl Iterator<Item = (u64, usize)> {
    const LARGEST: u64 = 64 << 20;
    let end = end.min(start.saturating_add(LARGEST));
    (start..end).step_by(PIECE).map(move |from| {
        let left = end - from;
        let size = left.min((PIECE + LONGEST) as u64);
        (from, usize::try_from(size).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    #[test]
    fn all_codes_are_found_wherever_they_are() {
        let text = |codes: &[&[u8]]| codes.join(&[0x90, 0x0f][..]);
        let nothing = text(&[&[0x0f], &[0x05, 0x0f]]);
        let found = within(&nothing);
        assert!(found.syscall.is_none() && found.restorer.is_none() && found.pop.is_none());
        for restorer in RESTORERS {
            let found = within(&text(&[&[1], restorer, SYSCALL_RET]));
            let end = 3 + restorer.len() as u64;
            assert_eq!(
                (found.restorer, found.syscall),
                (Some((3, end)), Some(end + 2))
            );
        }
        let found = within(&text(&[POP_RAX_RET, &[2], SYSCALL_RET]));
        assert_eq!(
            (found.pop, found.syscall, found.restorer),
            (Some(0), Some(7), None)
        );
    }

    #[test]
    fn text_that_waits_elsewhere_is_not_run() {
        let own = Process::open(std::process::id().cast_signed(), Access::Read).unwrap();
        let mut maps = own.maps().unwrap().to_vec();
        let is_text = |map: &MemoryMap| {
            let is_file = matches!(map.pathname, MMapPath::Path(_));
            is_file && map.offset > 0 && map.perms.contains(MMPermissions::EXECUTE)
        };
        let text = maps.iter().position(is_text).unwrap();
        assert!(is_in_place(&maps, text));
        let stack = maps.iter().position(|map| map.pathname == MMapPath::Stack);
        let copy = maps[text].clone();
        maps.insert(stack.unwrap(), copy);
        assert!(!is_in_place(&maps, stack.unwrap()));
    }

    #[test]
    fn pieces_leave_nothing_out_and_overlap() {
        let (start, end) = (0x1000, 0x1000 + PIECE as u64 * 2 + 5);
        let all: Vec<(u64, u64)> = pieces((start, end))
            .map(|(from, size)| (from, from + size as u64))
            .collect();
        assert_eq!((all[0].0, all[2].1, all.len()), (start, end, 3));
        // The longest code has 9 bytes: at each border it lies whole in one piece.
        assert!(
            all.windows(2)
                .all(|pair| pair[0].1 >= pair[1].0 + 5 && pair[1].0 > pair[0].0)
        );
        assert!(all[0].1 >= all[1].0 + 9);
    }
}
