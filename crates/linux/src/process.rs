//! A process: opened, looked at, held against other tools.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use invivo_apply::{Options, TargetError};
use invivo_image::LiveAddr;
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use crate::error::proc_error;
use crate::gadgets::Gadgets;
use crate::lock::{Lock, is_ending};
use crate::memory::Memory;

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
    pub(crate) memory: Memory,
    pub(crate) info: procfs::process::Process,
    pub(crate) gadgets: OnceCell<Option<Gadgets>>,
    name: String,
    _lock: Option<Lock>,
}

impl Process {
    /// Opens the process `pid`.
    ///
    /// # Errors
    /// When there is no such process, when it is of a kind that cannot be patched, when
    /// it may not be looked at, or when another tool works on it.
    pub fn open(pid: i32, access: Access<'_>) -> Result<Process, TargetError> {
        let info = procfs::process::Process::new(pid).map_err(|e| proc_error(pid, e))?;
        let stat = info.stat().map_err(|e| proc_error(pid, e))?;
        if matches!(stat.state, 'Z' | 'X') {
            return Err(TargetError::Unsupported(format!(
                "process {pid} has ended (it is a zombie)"
            )));
        }
        if stat.vsize == 0 {
            let text = format!("process {pid} ({}) is a thread of the kernel", stat.comm);
            return Err(TargetError::Unsupported(text));
        }
        let options = match access {
            Access::Read => None,
            Access::Write(options) => Some(options),
        };
        let memory = Memory::open(pid, options.is_some())?;
        is_64_bit(pid, &memory, &info)?;
        let mut process = Process {
            pid,
            memory,
            info,
            gadgets: OnceCell::new(),
            name: stat.comm,
            _lock: None,
        };
        if let Some(options) = options {
            process._lock = Some(Lock::take(pid, process.memory.file()?, options)?);
            process.may_be_traced()?;
            process.wait_for_strays()?;
        }
        Ok(process)
    }

    /// `Ok` if nobody else traces the process, and it is not stopped.
    fn may_be_traced(&self) -> Result<(), TargetError> {
        let pid = self.pid;
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            let status = self.info.status().map_err(|e| proc_error(pid, e))?;
            match status.tracerpid {
                0 if status.state.starts_with('T') => {
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

    pub(crate) fn maps(&self) -> Result<Vec<MemoryMap>, TargetError> {
        let maps = self.info.maps().map_err(|e| proc_error(self.pid, e))?;
        if maps.0.is_empty() {
            return Err(TargetError::Gone(self.pid));
        }
        Ok(maps.0)
    }

    /// Its threads.
    pub(crate) fn tids(&self) -> Result<Vec<i32>, TargetError> {
        let tasks = self.info.tasks().map_err(|e| proc_error(self.pid, e))?;
        Ok(tasks.flatten().map(|task| task.tid).collect())
    }

    /// True unless the process is known to catch no signal at all.
    pub(crate) fn has_handlers(&self) -> bool {
        self.info.status().map_or(true, |status| status.sigcgt != 0)
    }

    pub(crate) fn has_thread(&self, tid: i32) -> bool {
        std::path::Path::new(&format!("/proc/{}/task/{tid}", self.pid)).exists()
    }

    /// The system call in which a thread waits, if it does.
    pub(crate) fn waits_in(&self, tid: i32) -> Option<i64> {
        self.waits_at(tid)?.split(' ').next()?.trim().parse().ok()
    }

    /// The system call in which a thread waits, its arguments, its stack pointer and its
    /// place, as the kernel writes them.
    pub(crate) fn waits_at(&self, tid: i32) -> Option<String> {
        let text =
            std::fs::read_to_string(format!("/proc/{}/task/{tid}/syscall", self.pid)).ok()?;
        (text.trim() != "running").then_some(text)
    }

    pub(crate) fn thread_name(&self, tid: i32) -> String {
        let path = format!("/proc/{}/task/{tid}/comm", self.pid);
        std::fs::read_to_string(path)
            .map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned())
    }
}

/// Every process that can be looked at.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn processes() -> Result<Vec<i32>, TargetError> {
    let all = procfs::process::all_processes().map_err(|e| proc_error(0, e))?;
    Ok(all.flatten().map(|process| process.pid).collect())
}

fn is_64_bit(
    pid: i32,
    memory: &Memory,
    info: &procfs::process::Process,
) -> Result<(), TargetError> {
    const ELF_CLASS: usize = 4;
    const CLASS_64: u8 = 2;
    let maps = info.maps().map_err(|e| proc_error(pid, e))?;
    let programs = maps
        .0
        .iter()
        .filter(|map| map.offset == 0 && matches!(map.pathname, MMapPath::Path(_)));
    for map in programs.filter(|map| map.perms.contains(MMPermissions::READ)) {
        let mut head = [0; 5];
        memory.read(invivo_image::LiveAddr(map.address.0), &mut head)?;
        if head[..4] == *b"\x7fELF" {
            return if head[ELF_CLASS] == CLASS_64 {
                Ok(())
            } else {
                Err(TargetError::Unsupported(format!(
                    "process {pid} runs a 32-bit program"
                )))
            };
        }
    }
    Ok(())
}
