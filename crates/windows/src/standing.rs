//! Who was made to stand, noted where it outlives the tool: a piece of shared memory with a name,
//! which a handle in the target keeps. Windows lets nobody go when a tool dies that suspended
//! threads; the next tool finds the note and does.

use std::fmt;
use std::ptr::null_mut;
use std::sync::atomic::{Ordering, fence};

use invivo_apply::TargetError;
use windows_sys::Win32::Foundation::{
    DUPLICATE_CLOSE_SOURCE, DUPLICATE_HANDLE_OPTIONS, DUPLICATE_SAME_ACCESS, DuplicateHandle,
    HANDLE,
};
use windows_sys::Win32::System::Memory::{
    FILE_MAP_READ, FILE_MAP_WRITE, MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFile, UnmapViewOfFile,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenThread, ResumeThread, SuspendThread, THREAD_GET_CONTEXT,
    THREAD_QUERY_INFORMATION, THREAD_SUSPEND_RESUME,
};

use crate::error::last;
use crate::handle::Handle;
use crate::names::{known_memory, memory};
use crate::snapshot::threads;

/// Bytes of the memory.
const SIZE: usize = 0x1_0000;

/// Words before the first thread: the handle in the target, and how many threads there are.
const HEAD: usize = 2;

/// The last word, which says nothing.
const SPARE: usize = SIZE / 8 - 1;

/// What is written there to see that two views are of one memory.
const MARKS: [u64; 2] = [0x6f76_6976_6e69, 0];

/// Threads that can be noted.
const MOST: usize = SPARE - HEAD;

/// What is wanted of a thread that stands.
pub(crate) const RIGHTS: u32 =
    THREAD_SUSPEND_RESUME | THREAD_GET_CONTEXT | THREAD_QUERY_INFORMATION;

/// In the place of a number of suspensions: it was about to be suspended.
const ABOUT: u32 = u32::MAX;

/// The note about one process.
pub(crate) struct Note {
    /// Keeps the memory for this tool.
    _memory: Handle,
    view: MEMORY_MAPPED_VIEW_ADDRESS,
}

fn name(pid: u32) -> String {
    format!("invivo-standing-{pid}")
}

impl Note {
    fn of(memory: Handle) -> Result<Note, TargetError> {
        let failed = || last("note which threads stand");
        // SAFETY: it is at least as large, since whoever made it asked for so much; a smaller one
        // of that name is an error.
        let view =
            unsafe { MapViewOfFile(memory.get(), FILE_MAP_READ | FILE_MAP_WRITE, 0, 0, SIZE) };
        if view.Value.is_null() {
            return Err(failed());
        }
        Ok(Note {
            _memory: memory,
            view,
        })
    }

    /// Makes an empty one, which the target keeps.
    pub(crate) fn new(process: &Handle, pid: u32) -> Result<Note, TargetError> {
        let note = Note::of(memory(&name(pid), SIZE as u32, process)?)?;
        note.set(1, 0);
        if note.get(0) == 0 {
            let mut kept = null_mut();
            // SAFETY: it makes a handle in the target and gives its number back.
            let ok = unsafe {
                let (own, memory) = (GetCurrentProcess(), note._memory.get());
                let same = DUPLICATE_SAME_ACCESS;
                DuplicateHandle(own, memory, process.get(), &raw mut kept, 0, 0, same)
            };
            if ok == 0 {
                return Err(last("note in the process which threads stand"));
            }
            note.set(0, kept as u64);
        }
        Ok(note)
    }

    /// The one that a tool left, if there is one.
    pub(crate) fn left(process: &Handle, pid: u32) -> Option<Note> {
        Note::of(known_memory(&name(pid), process)?).ok()
    }

    fn get(&self, word: usize) -> u64 {
        // SAFETY: it is in the view, whose address is that of a page.
        unsafe { self.view.Value.cast::<u64>().add(word).read_volatile() }
    }

    fn set(&self, word: usize, value: u64) {
        // SAFETY: as above.
        unsafe {
            self.view
                .Value
                .cast::<u64>()
                .add(word)
                .write_volatile(value)
        }
        // What is noted is there before what it is about is done.
        fence(Ordering::SeqCst);
    }

    /// How many threads stand, or were about to.
    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.get(1)).unwrap_or(MOST).min(MOST)
    }

    /// This thread is about to be suspended.
    pub(crate) fn about(&self, tid: u32) -> Result<(), TargetError> {
        let count = self.count();
        if count >= MOST {
            let text = format!("more than {MOST} threads cannot be made to stand");
            return Err(TargetError::Unsupported(text));
        }
        self.set(HEAD + count, u64::from(tid) << 32 | u64::from(ABOUT));
        self.set(1, count as u64 + 1);
        Ok(())
    }

    /// It was, and had been so many times before; `None` where it had ended.
    pub(crate) fn done(&self, before: Option<u32>) {
        let last = self.count().saturating_sub(1);
        match before {
            Some(before) => {
                let tid = self.get(HEAD + last) >> 32;
                self.set(HEAD + last, tid << 32 | u64::from(before));
            }
            None => self.set(1, last as u64),
        }
    }

    /// All were let go: nothing is kept any more.
    pub(crate) fn end(&self, process: &Handle) {
        self.set(1, 0);
        let kept = self.get(0) as HANDLE;
        let is_kept = self.is_kept_as(process, kept);
        self.set(0, 0);
        if is_kept {
            // Nothing is done with it here.
            drop(taken(process, kept, DUPLICATE_CLOSE_SOURCE));
        }
    }

    /// True if the target has this memory by this number. Its program may have closed what it does not
    /// know, and have something of its own by that number since.
    fn is_kept_as(&self, process: &Handle, kept: HANDLE) -> bool {
        let other = taken(process, kept, 0).and_then(|memory| Note::of(memory).ok());
        // What is written here is seen there, whatever it is.
        other.is_some_and(|other| {
            MARKS.into_iter().all(|mark| {
                self.set(SPARE, mark);
                other.get(SPARE) == mark
            })
        })
    }

    /// Who still stands as the tool left it, once each.
    pub(crate) fn still_standing(&self, pid: u32) -> Result<Vec<(u32, Handle)>, TargetError> {
        let own = threads(pid)?;
        let mut found: Vec<(u32, Handle)> = Vec::new();
        for word in 0..self.count() {
            let noted = self.get(HEAD + word);
            let (tid, before) = ((noted >> 32) as u32, noted as u32);
            if own.contains(&tid)
                && !found.iter().any(|(known, _)| *known == tid)
                && let Some(thread) = standing(tid, before)
            {
                found.push((tid, thread));
            }
        }
        Ok(found)
    }

    /// Lets go who still stands as the tool left it; returns how many were let go.
    pub(crate) fn let_go(&self, process: &Handle, pid: u32) -> Result<usize, TargetError> {
        let found = self.still_standing(pid)?;
        for (_, thread) in &found {
            // SAFETY: it takes back the suspension that the dead tool made.
            unsafe { ResumeThread(thread.get()) };
        }
        self.end(process);
        Ok(found.len())
    }
}

/// What the target has by a number; with `DUPLICATE_CLOSE_SOURCE` it has it no more.
fn taken(process: &Handle, kept: HANDLE, how: DUPLICATE_HANDLE_OPTIONS) -> Option<Handle> {
    let (mut ours, how) = (null_mut(), how | DUPLICATE_SAME_ACCESS);
    // SAFETY: it makes a handle of this program; one of the target's is closed only where the caller
    // knows that it was made there for this.
    let ok = unsafe {
        let own = GetCurrentProcess();
        DuplicateHandle(process.get(), kept, own, &raw mut ours, 0, 0, how)
    };
    Handle::new(ours).filter(|_| ok != 0)
}

/// A thread, if it has one suspension more than it had.
fn standing(tid: u32, before: u32) -> Option<Handle> {
    // SAFETY: it only opens a handle.
    let thread = Handle::new(unsafe { OpenThread(RIGHTS, 0, tid) })?;
    // SAFETY: the suspension that is made here is taken back.
    let now = unsafe {
        let now = SuspendThread(thread.get());
        if now == u32::MAX {
            return None;
        }
        ResumeThread(thread.get());
        now
    };
    let least = if before == ABOUT { 0 } else { before };
    (now > least).then_some(thread)
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads", self.count())
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // SAFETY: the view was made by this, and nobody has an address in it.
        unsafe { UnmapViewOfFile(self.view) };
    }
}
