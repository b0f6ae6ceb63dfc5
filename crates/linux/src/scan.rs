//! Which processes have an image loaded: told without stopping or changing any.

use std::collections::{BTreeSet, HashMap};

use invivo_apply::TargetError;

use crate::memory::Memory;
use crate::{modules, proc_file, process::processes};

/// A process, told apart from later ones with the same number and from what it was
/// before it executed another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation {
    /// Its number.
    pub pid: i32,
    /// When it started, in ticks since boot.
    started: u64,
    /// Where its stack starts: elsewhere after each `exec`.
    stack: u64,
}

impl Incarnation {
    /// What the process with this number is now; `None` if there is none, or it has ended.
    #[must_use]
    pub fn of(pid: i32) -> Option<Incarnation> {
        Seen::of(pid).ok().and_then(|seen| seen.now)
    }

    /// True unless it has ended, or become another program.
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        Incarnation::of(self.pid) == Some(*self)
    }
}

/// What a process's `stat` says.
struct Seen {
    /// `None` if it has ended.
    now: Option<Incarnation>,
    /// Threads of the kernel have none.
    has_memory: bool,
}

impl Seen {
    fn of(pid: i32) -> Result<Seen, TargetError> {
        /// Of the values behind the name of the program, which may hold anything.
        const STARTED: usize = 19;
        const SIZE: usize = 20;
        const STACK: usize = 25;
        let stat = proc_file::read_piece(&format!("/proc/{pid}/stat"));
        let stat = stat.map_err(|error| proc_file::failure(pid, error))?;
        let values = stat.rsplit_once(')').map_or("", |(_, values)| values);
        let values: Vec<&str> = values.split_whitespace().collect();
        let number = |at: usize| values.get(at).and_then(|value| value.parse::<u64>().ok());
        let ended = matches!(values.first(), None | Some(&"Z" | &"X"));
        let place = number(STARTED).zip(number(STACK)).filter(|_| !ended);
        Ok(Seen {
            now: place.map(|(started, stack)| Incarnation {
                pid,
                started,
                stack,
            }),
            has_memory: number(SIZE).is_some_and(|size| size > 0),
        })
    }
}

/// What a walk over all processes found.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that have the image loaded, with its build id.
    pub processes: Vec<(Incarnation, Vec<u8>)>,
    /// How many may not be looked at.
    pub unread: usize,
}

/// Walks over all processes; remembers which file has which build id.
#[derive(Debug, Default)]
pub struct Scan {
    files: HashMap<File, Option<Vec<u8>>>,
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
        for pid in processes()?.into_iter().filter(|pid| *pid != own) {
            let seen = Seen::of(pid);
            // Threads of the kernel have no memory, and what has ended has none left.
            let seen = seen.map(|seen| seen.now.filter(|_| seen.has_memory));
            let now = match seen {
                Ok(Some(now)) if !known.contains(&now) => now,
                Ok(_) => continue,
                Err(TargetError::NotPermitted { .. }) => {
                    found.unread += 1;
                    continue;
                }
                Err(_) => continue,
            };
            match self.build_ids(pid) {
                Ok(ids) => {
                    let ids = ids.into_iter().filter(|id| wanted.contains(&&id[..]));
                    found.processes.extend(ids.map(|id| (now, id)));
                }
                Err(TargetError::NotPermitted { .. }) => found.unread += 1,
                // It has ended meanwhile.
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Build ids of everything that a process has loaded, each once.
    fn build_ids(&mut self, pid: i32) -> Result<Vec<Vec<u8>>, TargetError> {
        let maps = proc_file::read(&format!("/proc/{pid}/maps"));
        let maps = maps.map_err(|error| proc_file::failure(pid, error))?;
        let mut memory = None;
        let mut ids: Vec<Vec<u8>> = Vec::new();
        for (start, file) in maps.lines().filter_map(head) {
            let id = match self.files.get(&file) {
                Some(known) => known.clone(),
                None => {
                    let memory = match &memory {
                        Some(memory) => memory,
                        None => memory.insert(Memory::open(pid, false)?),
                    };
                    let id = modules::build_id_at(memory, start);
                    self.files.insert(file, id.clone());
                    id
                }
            };
            ids.extend(id);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
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

    #[test]
    fn this_process_is_one_and_the_same_until_it_ends() {
        let own = std::process::id().cast_signed();
        assert!(Incarnation::of(own).is_some_and(|own| own.is_still_there()));
        assert_eq!(Incarnation::of(i32::MAX), None);
    }
}
