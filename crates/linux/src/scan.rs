//! Which processes have an image loaded: told without stopping or changing any.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use invivo_apply::TargetError;
use invivo_image::LiveAddr;

use crate::incarnation::{Incarnation, Seen};
use crate::memory::Memory;
use crate::modules::{Head, Noted};
use crate::proc_file;
use crate::process::processes;
use crate::shared::lent_by;

/// What a walk over all processes found.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that have the image loaded, with its build id.
    pub processes: Vec<(Incarnation, Vec<u8>)>,
    /// How many may not be looked at.
    pub unread: usize,
}

/// Walks over all processes; remembers where files have their build ids.
///
/// Each process answers for itself: what is remembered of a file is only where to look. A process
/// may die while it is looked at, or show what it likes in its own copy of a page, and that
/// must not hide the same file in others.
#[derive(Debug, Default)]
pub struct Scan {
    files: HashMap<File, Noted>,
}

/// How often a process is looked at again that executes another program meanwhile.
const AGAIN: usize = 8;
/// How long a walk waits in all for processes that are about to execute a program of their own.
const ABOUT_TO: Duration = Duration::from_millis(20);

/// What a look at a process showed.
enum Look {
    /// What it has loaded.
    Loaded(Incarnation, Vec<Vec<u8>>),
    /// It runs in the memory of the one that started it, which is looked at for both.
    Lent(Vec<Vec<u8>>),
    /// It is none that is asked about, or has ended.
    Nothing,
}

impl Scan {
    /// Processes that have an image loaded whose build id is `wanted`, but for those that
    /// are `known`. Processes that end meanwhile are left out, and so is this program.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn find(
        &mut self,
        wanted: &[&[u8]],
        known: &BTreeSet<Incarnation>,
    ) -> Result<Found, TargetError> {
        let mut found = Found::default();
        let own = std::process::id().cast_signed();
        let mut later = Vec::new();
        for pid in processes()?.into_iter().filter(|pid| *pid != own) {
            if self.add(pid, wanted, known, &mut found) {
                later.push(pid);
            }
        }
        let deadline = Instant::now() + ABOUT_TO;
        while !later.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            later.retain(|pid| self.add(*pid, wanted, known, &mut found));
        }
        Ok(found)
    }

    /// Looks at a process. True if it is to be looked at again a little later.
    fn add(
        &mut self,
        pid: i32,
        wanted: &[&[u8]],
        known: &BTreeSet<Incarnation>,
        found: &mut Found,
    ) -> bool {
        let is_wanted = |id: &Vec<u8>| wanted.contains(&&id[..]);
        match self.look(pid, known) {
            Ok(Look::Loaded(now, ids)) => {
                let ids = ids.into_iter().filter(is_wanted);
                found.processes.extend(ids.map(|id| (now, id)));
            }
            Ok(Look::Lent(ids)) => return ids.iter().any(is_wanted),
            Ok(Look::Nothing) | Err(TargetError::Gone(_)) => {}
            Err(_) => found.unread += 1,
        }
        false
    }

    /// What a process has loaded, unless it is `known`.
    fn look(&mut self, pid: i32, known: &BTreeSet<Incarnation>) -> Result<Look, TargetError> {
        for _ in 0..AGAIN {
            let seen = Seen::of(pid)?;
            // Threads of the kernel have no memory, and what has ended has none left.
            let now = match seen.now.filter(|_| seen.has_memory) {
                Some(now) if !known.contains(&now) => now,
                _ => return Ok(Look::Nothing),
            };
            let result = self.build_ids(pid, seen.shown_by);
            let ids = match result {
                Ok((ids, true)) => ids,
                // What cannot be read any more may have become another program.
                Ok((ids, false)) if now.is_still_there() => ids,
                Ok(_) | Err(TargetError::Gone(_)) => continue,
                Err(error) => return Err(error),
            };
            if !ids.is_empty() && lent_by(pid, &seen).is_some() {
                return Ok(Look::Lent(ids));
            }
            return Ok(Look::Loaded(now, ids));
        }
        Err(TargetError::NotNow(format!(
            "process {pid} executes one program after the other"
        )))
    }

    /// Build ids of everything that a process has loaded, each once; and whether all of it could be
    /// looked at.
    fn build_ids(&mut self, pid: i32, shown_by: i32) -> Result<(Vec<Vec<u8>>, bool), TargetError> {
        let maps = proc_file::read(&format!("/proc/{shown_by}/maps"));
        let maps = maps.map_err(|error| proc_file::failure(pid, error))?;
        let mut whole = !maps.is_empty();
        let mut memory = None;
        let mut ids: Vec<Vec<u8>> = Vec::new();
        for (start, file) in maps.lines().filter_map(head) {
            let memory = match &memory {
                Some(memory) => memory,
                None => memory.insert(Memory::open(shown_by, false)?),
            };
            match self.head(memory, start, file) {
                Head::Image(noted) => ids.push(noted.id),
                Head::Other => {}
                Head::Unread => whole = false,
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok((ids, whole))
    }

    fn head(&mut self, memory: &Memory, start: u64, file: File) -> Head {
        if let Some(known) = self.files.get(&file) {
            let at = LiveAddr(start.wrapping_add(known.offset));
            if memory.read_some(at, known.id.len()) == known.id {
                return Head::Image(known.clone());
            }
        }
        let head = Head::at(memory, start);
        if let Head::Image(noted) = &head {
            self.files.entry(file).or_insert_with(|| noted.clone());
        }
        head
    }
}

/// Major and minor number of a device, and an inode there.
type File = (u32, u32, u64);

/// Where the start of a file that may be an image is mapped, from its line in `maps`:
/// `55dde71d7000-55dde71d8000 r--p 00000000 fd:00 1234    /usr/bin/server`.
fn head(line: &str) -> Option<(u64, File)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    if !rights.starts_with('r') || offset.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let ((major, minor), inode) = (words.next()?.split_once(':')?, words.next()?);
    words.next().filter(|path| path.starts_with('/'))?;
    let start = u64::from_str_radix(range.split_once('-')?.0, 16).ok()?;
    let number = |hex| u32::from_str_radix(hex, 16).ok();
    Some((start, (number(major)?, number(minor)?, inode.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readable_starts_of_files_are_heads() {
        let line = "55dde71d7000-55dde71d8000 r--p 00000000 fd:1a 1234     /usr/bin/a server";
        assert_eq!(head(line), Some((0x55dd_e71d_7000, (0xfd, 0x1a, 1234))));
        for other in [
            line.replace("r--p", "---p"),
            line.replace("00000000", "00001000"),
            line.replace("/usr/bin/a server", "[heap]"),
            line.replace("/usr/bin/a server", ""),
            "strange".to_owned(),
        ] {
            assert_eq!(head(&other), None);
        }
    }
}
