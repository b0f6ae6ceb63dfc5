//! A process: opened, looked at, held against other tools.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use invivo_apply::{Options, TargetError, shown};
use invivo_image::LiveAddr;
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::error::{proc_error, system};
use crate::frozen::frozen_in;
use crate::gadgets::Gadgets;
use crate::incarnation::Seen;
use crate::lock::{Lock, is_ending};
use crate::memory::Memory;
use crate::proc_file::{self, Status, failure};
use crate::shared::has_its_own;
use crate::slow::Slow;
use crate::suspended::Coroutines;

/// How long one look at the mappings serves, as long as this program changes none. What
/// is done with them can never be sure that the process has not gone on meanwhile: nothing
/// is put where something is, and text is compared with its file before it is moved.
const FRESH: Duration = Duration::from_millis(1);

/// What will be done to a process.
#[derive(Clone, Copy, Debug)]
pub enum Access<'o> {
    /// Only look.
    Read,
    /// Change it: no other tool may do so at the same time. The options say how long to
    /// wait for one that does.
    Write(&'o Options<'o>),
}

/// A Linux process.
#[derive(Debug)]
pub struct Process {
    pub(crate) pid: i32,
    /// Its first thread that lives: what `/proc` shows of the process, it shows for that one. The one
    /// that it began with may have ended before the others.
    pub(crate) first: i32,
    pub(crate) memory: Memory,
    pub(crate) info: procfs::process::Process,
    pub(crate) gadgets: OnceCell<Option<Gadgets>>,
    name: String,
    /// The mappings, and when they were looked at.
    maps: RefCell<Option<(Instant, Rc<Vec<MemoryMap>>)>>,
    /// The thread that was last let go on in a system call, and is on its way back into it.
    pub(crate) returning: Cell<Option<i32>>,
    /// Its threads that were late to stand.
    pub(crate) slow: Slow,
    /// What makes it a program with coroutines, where that was asked.
    pub(crate) coroutines: RefCell<Option<Coroutines>>,
    /// The thread on whose processor this program already is.
    pub(crate) beside: Cell<Option<i32>>,
    /// How many bytes of its memory may be searched while its threads stand, where that was said.
    pub(crate) search: Option<u64>,
    _lock: Option<Lock>,
}

impl Process {
    /// Opens the process `pid`.
    ///
    /// # Errors
    /// When there is no such process, when it is of a kind that cannot be patched, when
    /// it may not be looked at, or when another tool works on it.
    pub fn open(pid: i32, access: Access<'_>) -> Result<Process, TargetError> {
        has_own_numbers()?;
        let seen = Seen::of(pid)?;
        let first = seen.shown_by;
        let info = procfs::process::Process::new(first).map_err(|e| proc_error(pid, e))?;
        let options = match access {
            Access::Read => None,
            Access::Write(options) => Some(options),
        };
        // Before its memory is opened, which stays the same one whatever it executes meanwhile.
        if options.is_some() {
            has_its_own(pid, &seen)?;
        }
        // What has no memory, or no longer, says so in other words.
        let memory =
            Memory::open(first, options.is_some()).map_err(|error| match Status::of(first) {
                Ok(status) => has_memory(pid, &status).err().unwrap_or(error),
                Err(_) => error,
            })?;
        let lock = match options {
            Some(options) => Some(Lock::take(pid, memory.file()?, options)?),
            None => None,
        };
        // Not before the lock is held: another tool may have left the process otherwise.
        let status = Status::of(first)?;
        has_memory(pid, &status)?;
        let process = Process {
            pid,
            first,
            memory,
            info,
            gadgets: OnceCell::new(),
            name: shown(status.field("Name:").unwrap_or_default()),
            maps: RefCell::new(None),
            returning: Cell::new(None),
            slow: Slow::new(),
            coroutines: RefCell::new(None),
            beside: Cell::new(None),
            search: options.and_then(|options| options.search),
            _lock: lock,
        };
        // What a stray still does to the mappings comes before the first look at them.
        if options.is_some() {
            process.may_be_traced(&status)?;
            if let Some(group) = frozen_in(first) {
                return Err(TargetError::NotNow(format!(
                    "process {pid} is frozen with its control group, {}; thaw it (docker unpause, or \
                     systemctl thaw)",
                    group.display()
                )));
            }
            process.wait_for_strays(&status)?;
        }
        process.is_64_bit()?;
        Ok(process)
    }

    /// `Ok` if nobody else traces the process, and it is not stopped; `status` is what it
    /// said a moment ago.
    fn may_be_traced(&self, status: &Status) -> Result<(), TargetError> {
        let pid = self.pid;
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut newer = None;
        loop {
            let status = newer.as_ref().unwrap_or(status);
            match status.tracer() {
                0 if status.state() == 'T' => {
                    return Err(TargetError::NotNow(format!(
                        "process {pid} is stopped (SIGSTOP); continue it with: kill -CONT {pid}"
                    )));
                }
                0 => return Ok(()),
                tracer if is_ending(tracer) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                tracer => return Err(TargetError::Traced { pid, tracer }),
            }
            newer = Some(Status::of(self.first)?);
        }
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its short name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that it sees as `/`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.first))
    }

    /// The program that it runs, where that can be told.
    #[must_use]
    pub fn exe(&self) -> Option<PathBuf> {
        self.info.exe().ok()
    }

    /// Where the program begins to run.
    pub(crate) fn entry(&self) -> Result<LiveAddr, TargetError> {
        const AT_ENTRY: u64 = 9;
        let auxv = self.info.auxv().map_err(|e| proc_error(self.pid, e))?;
        Ok(LiveAddr(auxv.get(&AT_ENTRY).copied().unwrap_or(0)))
    }

    pub(crate) fn maps(&self) -> Result<Rc<Vec<MemoryMap>>, TargetError> {
        if let Some((seen, maps)) = &*self.maps.borrow()
            && seen.elapsed() < FRESH
        {
            return Ok(Rc::clone(maps));
        }
        let seen = Instant::now();
        let maps = self.info.maps().map_err(|e| proc_error(self.pid, e))?;
        if maps.0.is_empty() {
            return Err(TargetError::Gone(self.pid));
        }
        let maps = Rc::new(maps.0);
        *self.maps.borrow_mut() = Some((seen, Rc::clone(&maps)));
        Ok(maps)
    }

    /// The next look at the mappings is a new one.
    pub(crate) fn forget_maps(&self) {
        *self.maps.borrow_mut() = None;
    }

    /// Its threads.
    pub(crate) fn tids(&self) -> Result<Vec<i32>, TargetError> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid));
        let tasks = tasks.map_err(|error| failure(self.pid, error))?;
        let number = |name: std::ffi::OsString| name.to_str()?.parse().ok();
        let tids = tasks.flatten().filter_map(|task| number(task.file_name()));
        Ok(tids.filter(|tid| !self.is_dead_first(*tid)).collect())
    }

    /// True for the thread that the process began with, if that had ended before the others.
    fn is_dead_first(&self, tid: i32) -> bool {
        tid == self.pid && tid != self.first
    }

    /// Its threads, the first one before all others are looked for, which takes long where there
    /// are many. Where they cannot be listed there are no others.
    pub(crate) fn first_and_others(&self) -> impl Iterator<Item = i32> {
        let others = || self.tids().into_iter().flatten();
        let others = std::iter::once_with(others).flatten();
        std::iter::once(self.first).chain(others.filter(|tid| *tid != self.first))
    }

    /// How many threads it has, those that have ended but are not forgotten included.
    pub(crate) fn thread_count(&self) -> Option<usize> {
        let data = std::fs::metadata(format!("/proc/{}/task", self.pid)).ok()?;
        // Each is a folder below this one, and so are the two that every folder has.
        let others = 2 + u64::from(self.is_dead_first(self.pid));
        usize::try_from(data.nlink().checked_sub(others)?).ok()
    }

    /// True unless the process is known to catch no signal at all.
    pub(crate) fn has_handlers(&self) -> bool {
        let caught = Status::of(self.first).map(|status| status.bits("SigCgt:"));
        !matches!(caught, Ok(Some(0)))
    }

    pub(crate) fn has_thread(&self, tid: i32) -> bool {
        std::path::Path::new(&format!("/proc/{}/task/{tid}", self.pid)).exists()
    }

    /// The system call in which a thread waits, if it does.
    pub(crate) fn waits_in(&self, tid: i32) -> Option<i64> {
        call_in(&self.waits_at(tid)?)
    }

    /// The same; `None` for a thread in which the kernel works for itself.
    pub(crate) fn call_of(&self, tid: i32) -> Option<Option<i64>> {
        let works = |waits: &Option<String>| match waits {
            Some(waits) => Process::is_worker_at(waits),
            None => self.is_marked_worker(tid),
        };
        let waits = self.waits_at(tid);
        (!works(&waits)).then(|| call_in(&waits?))
    }

    /// The system call in which a thread waits, its arguments, its stack pointer and its
    /// place, as the kernel writes them.
    pub(crate) fn waits_at(&self, tid: i32) -> Option<String> {
        let text = proc_file::read_piece(&format!("/proc/{}/task/{tid}/syscall", self.pid)).ok()?;
        (text.trim() != "running").then_some(text)
    }

    pub(crate) fn name_of(&self, tid: i32) -> String {
        let path = format!("/proc/{}/task/{tid}/comm", self.pid);
        proc_file::read_piece(&path).map_or_else(|_| "?".to_owned(), |name| shown(name.trim_end()))
    }

    pub(crate) fn is_64_bit(&self) -> Result<(), TargetError> {
        const ELF_CLASS: usize = 4;
        const CLASS_64: u8 = 2;
        let maps = self.maps()?;
        let programs = maps
            .iter()
            .filter(|map| map.offset == 0 && matches!(map.pathname, MMapPath::Path(_)));
        for map in programs.filter(|map| map.perms.contains(MMPermissions::READ)) {
            let mut head = [0; 5];
            self.memory.read(LiveAddr(map.address.0), &mut head)?;
            if head[..4] == *b"\x7fELF" {
                return if head[ELF_CLASS] == CLASS_64 {
                    Ok(())
                } else {
                    Err(TargetError::Unsupported(format!(
                        "process {} runs a 32-bit program",
                        self.pid
                    )))
                };
            }
        }
        Ok(())
    }
}

/// `Ok` if `/proc` numbers processes as the system calls of this program do. In a container that shows
/// another one's, memory of one process would be read there, and another one stopped.
fn has_own_numbers() -> Result<(), TargetError> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let looks = || {
        let own = std::fs::read_link("/proc/self");
        own.is_ok_and(|own| own.to_str() == Some(&nix::unistd::getpid().to_string()))
    };
    if *KNOWN.get_or_init(looks) {
        return Ok(());
    }
    Err(TargetError::Unsupported(
        "/proc does not show the processes that this program sees, but those of another PID namespace, \
         or none; mount it anew (mount -t proc proc /proc), or enter the namespace whose /proc \
         it is"
            .to_owned(),
    ))
}

/// The number of the system call in what the kernel writes of a thread that waits.
fn call_in(waits: &str) -> Option<i64> {
    waits.split(' ').next()?.trim().parse().ok()
}

/// `Ok` for a process that has memory.
fn has_memory(pid: i32, status: &Status) -> Result<(), TargetError> {
    if status.has_ended() {
        let text = format!("process {pid} has ended (it is a zombie)");
        return Err(TargetError::Unsupported(text));
    }
    if status.field("VmSize:").is_none() {
        let name = status.field("Name:").unwrap_or_default();
        let text = format!("process {pid} ({name}) is a thread of the kernel");
        return Err(TargetError::Unsupported(text));
    }
    Ok(())
}

/// Every process that can be looked at.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn processes() -> Result<Vec<i32>, TargetError> {
    let all = std::fs::read_dir("/proc").map_err(|error| system("read /proc", error))?;
    let number = |name: std::ffi::OsString| name.to_str()?.parse().ok();
    Ok(all
        .flatten()
        .filter_map(|entry| number(entry.file_name()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_as_they_are_listed() {
        let own = Process::open(std::process::id().cast_signed(), Access::Read).unwrap();
        let (stay, leave) = std::sync::mpsc::channel::<()>();
        let waits = std::thread::spawn(move || leave.recv());
        // Other tests start and end threads meanwhile.
        let same = (0..1000).any(|_| Some(own.tids().unwrap().len()) == own.thread_count());
        assert!(same && own.thread_count() > Some(1));
        drop(stay);
        assert!(waits.join().unwrap().is_err());
    }
}
