//! A process that is open.

use std::cell::RefCell;

use invivo_apply::hpat::Host;
use invivo_apply::{TargetError, put_back_left};
use invivo_image::LiveAddr;
use windows_sys::Win32::Foundation::{WAIT_ABANDONED, WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{
    OpenProcess, PROCESS_CREATE_THREAD, PROCESS_DUP_HANDLE, PROCESS_QUERY_INFORMATION,
    PROCESS_SYNCHRONIZE, PROCESS_VM_OPERATION, PROCESS_VM_READ, PROCESS_VM_WRITE, ReleaseMutex,
    WaitForSingleObject,
};

use crate::calls::{Calls, take_back};
use crate::error::last;
use crate::handle::Handle;
use crate::names::mutex;
use crate::privilege::open_others;
use crate::snapshot::{Running, is_narrow, processes};
use crate::standing::Note;

const INVALID_PARAMETER: i32 = 87;

/// What is wanted of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To look at it; nothing of it changes.
    Read,
    /// To tell whether it could be changed; nothing of it changes.
    Ask,
    /// To change it, as the only tool that does.
    Write {
        /// Milliseconds to wait for another one.
        patience: u32,
    },
}

/// A process of Windows.
#[derive(Debug)]
pub struct Process {
    pub(crate) pid: u32,
    pub(crate) handle: Handle,
    pub(crate) calls: Option<Calls>,
    name: String,
    /// Kept for as long as nobody else may change the process.
    turn: Option<Handle>,
    /// Who stands since a tool died, until they are let go.
    pub(crate) left: Option<Note>,
    /// Threads that were let go when it was opened; `None` where no tool had died while any stood.
    pub(crate) let_go: Option<usize>,
    /// Where memory begins that a tool may have made, once it was looked for. Nobody else makes any
    /// while this tool has its turn.
    pub(crate) reserved: RefCell<Option<Vec<LiveAddr>>>,
}

impl Process {
    /// Opens it. If it is opened to be changed, threads that a tool which died left suspended go on,
    /// after what it had written in part was put back.
    ///
    /// # Errors
    /// When there is no such process, it may not be opened, or another tool changes it.
    pub fn open(pid: u32, access: Access) -> Result<Process, TargetError> {
        let look = PROCESS_QUERY_INFORMATION | PROCESS_VM_READ | PROCESS_SYNCHRONIZE;
        let change =
            PROCESS_CREATE_THREAD | PROCESS_DUP_HANDLE | PROCESS_VM_OPERATION | PROCESS_VM_WRITE;
        let rights = match access {
            Access::Read => look,
            Access::Ask | Access::Write { .. } => look | change,
        };
        // SAFETY: it only opens a handle.
        let open = || Handle::new(unsafe { OpenProcess(rights, 0, pid) });
        let failed = || match last("open the process") {
            // Of one that has just ended another error may be told.
            TargetError::System { source, .. }
                if source.raw_os_error() == Some(INVALID_PARAMETER) || !runs(pid) =>
            {
                TargetError::Gone(pid.cast_signed())
            }
            other => other,
        };
        let handle = match open().ok_or_else(failed) {
            Err(TargetError::NotPermitted { .. }) if open_others() => open().ok_or_else(failed)?,
            opened => opened?,
        };
        // SAFETY: it does not wait.
        if unsafe { WaitForSingleObject(handle.get(), 0) } == WAIT_OBJECT_0 {
            // It is known for as long as somebody has a handle of it.
            return Err(TargetError::Gone(pid.cast_signed()));
        }
        let running = processes()?.into_iter().find(|one| one.pid == pid);
        let name = running.map_or_else(String::new, |one| one.name);
        if access != Access::Read && is_narrow(&handle) {
            return Err(TargetError::Unsupported(format!(
                "process {pid} ({name}) runs a program for 32 bits, in which this one changes nothing; \
                 patch it on disk (invivo install) and restart it"
            )));
        }
        let turn = match access {
            Access::Read | Access::Ask => None,
            Access::Write { patience } => Some(turn(&handle, pid, patience)?),
        };
        let left = turn.as_ref().and_then(|_| Note::left(&handle, pid));
        let noted = left.as_ref().is_some_and(|note| note.count() > 0);
        let mut process = Process {
            pid,
            handle,
            calls: None,
            name,
            turn,
            left,
            let_go: noted.then_some(0),
            reserved: RefCell::new(None),
        };
        // Who stands since a tool died may keep its loader's lists from being read. It goes on all
        // the same, and after that they can be.
        let taken_back = process.take_back();
        if process.left.is_some() {
            // They may have been stopped for what is written in part now. What cannot be put back
            // is refused when its record is settled.
            let _ = put_back_left(&mut process);
        }
        if let Some(note) = process.left.take() {
            let went_on = note.let_go(&process.handle, pid)?;
            process.let_go = process.let_go.map(|before| before + went_on);
        }
        if taken_back.is_err() {
            process.take_back()?;
        }
        Ok(process)
    }

    /// Takes back what a dead tool asked of threads that come late.
    fn take_back(&self) -> Result<(), TargetError> {
        if !self.has_turn() {
            return Ok(());
        }
        take_back(&self.handle, &self.reserved()?)
    }

    /// True if nobody else may change it now.
    pub(crate) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// How many threads went on when it was opened, where a tool had died while they stood: none where it
    /// had let them go itself and died before it had noted that.
    #[must_use]
    pub fn let_go(&self) -> Option<usize> {
        self.let_go
    }

    /// How many threads stand since a tool died.
    #[must_use]
    pub fn standing(&self) -> usize {
        match Note::left(&self.handle, self.pid) {
            Some(note) if self.turn.is_none() && !self.is_taken() => note.count(),
            _ => 0,
        }
    }

    /// True if another tool changes it at this moment: what is in the middle is in its hands.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.turn.is_none() && is_taken(&self.handle, self.pid)
    }

    /// The name of its program.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What makes calls in it; ready when it is first needed.
    pub(crate) fn calls(&mut self) -> Result<(&Handle, &mut Calls), TargetError> {
        if let Some(spent) = self.calls.take_if(|calls| calls.is_spent()) {
            spent.end(&self.handle);
        }
        if self.calls.is_none() {
            self.calls = Some(Calls::new(&self.handle)?);
        }
        match &mut self.calls {
            Some(calls) => Ok((&self.handle, calls)),
            None => Err(TargetError::Gone(self.pid.cast_signed())),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(calls) = &self.calls {
            calls.end(&self.handle);
        }
        if let Some(turn) = &self.turn {
            // SAFETY: this thread took it.
            unsafe { ReleaseMutex(turn.get()) };
        }
    }
}

/// False for a process that has ended.
fn runs(pid: u32) -> bool {
    let is_it = |all: Vec<Running>| all.iter().any(|one| one.pid == pid);
    // What is not known may run.
    processes().map_or(true, is_it)
}

/// What the tool that changes a process has.
fn lock(process: &Handle, pid: u32) -> Result<Handle, TargetError> {
    mutex(&format!("invivo-{pid}"), Some(process))
}

/// A turn at something else that only one tool may change.
#[derive(Debug)]
pub(crate) struct Turn(Handle);

impl Drop for Turn {
    fn drop(&mut self) {
        // SAFETY: this thread took it.
        unsafe { ReleaseMutex(self.0.get()) };
    }
}

impl Turn {
    /// Waits until no other tool has the turn of this name; `None` where one keeps it. One that died
    /// has left it.
    ///
    /// # Errors
    /// When there is no such turn to take, since its name is somebody else's.
    pub(crate) fn take(name: &str, patience: u32) -> Result<Option<Turn>, TargetError> {
        let turn = mutex(name, None)?;
        // SAFETY: it only waits.
        Ok(match unsafe { WaitForSingleObject(turn.get(), patience) } {
            WAIT_OBJECT_0 | WAIT_ABANDONED => Some(Turn(turn)),
            _ => None,
        })
    }
}

/// True if a tool changes the process at this moment.
fn is_taken(process: &Handle, pid: u32) -> bool {
    lock(process, pid).is_ok_and(|lock| {
        // SAFETY: it does not wait; what it takes it gives back.
        unsafe {
            let taken = WaitForSingleObject(lock.get(), 0) == WAIT_TIMEOUT;
            if !taken {
                ReleaseMutex(lock.get());
            }
            taken
        }
    })
}

/// Waits until no other tool changes the process. One that died has left it.
fn turn(process: &Handle, pid: u32, patience: u32) -> Result<Handle, TargetError> {
    let turn = lock(process, pid)?;
    // SAFETY: it only waits.
    match unsafe { WaitForSingleObject(turn.get(), patience) } {
        WAIT_OBJECT_0 | WAIT_ABANDONED => Ok(turn),
        _ => Err(TargetError::NotNow(format!(
            "another tool is at work in process {pid}"
        ))),
    }
}
