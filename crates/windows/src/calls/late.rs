//! Threads that are made in the target, and those that come when nobody waits for them any more.

use std::mem::transmute;
use std::ptr::{null, null_mut};

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use windows_sys::Win32::Foundation::WAIT_OBJECT_0;
use windows_sys::Win32::System::Diagnostics::Debug::{
    CONTEXT, CONTEXT_CONTROL_AMD64, GetThreadContext,
};
use windows_sys::Win32::System::Threading::{
    CreateRemoteThread, GetProcessId, GetThreadId, ResumeThread, SuspendThread, WaitForSingleObject,
};

use super::code::code;
use super::{ALLOWED, Calls};
use crate::error::last;
use crate::handle::Handle;
use crate::memory::{PAGE, read, write};
use crate::standing::Note;
use crate::stop::Registers;

/// Milliseconds that such a thread has; it never takes one, unless the loader is busy.
const PATIENCE: u32 = 10_000;

/// Milliseconds in which one ends that has begun with a store.
const LITTLE: u32 = 1_000;

/// A thread that did not end in time.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) thread: Handle,
    /// True if it does nothing any more, whenever it comes.
    pub(super) cancelled: bool,
}

/// Takes back what tools that died asked threads for which have not begun with it: whoever was killed while
/// a thread waited for the loader took nothing back. `made` is where memory begins that tools may have
/// made; theirs begins with the code that such a thread runs.
pub(crate) fn take_back(process: &Handle, made: &[LiveAddr]) -> Result<(), TargetError> {
    let (code, _) = code();
    let mut there = vec![0; code.len()];
    for at in made {
        if read(process, *at, &mut there).is_ok() && there == code {
            write(process, LiveAddr(at.0 + PAGE + ALLOWED), &[0; 8])?;
        }
    }
    Ok(())
}

impl Calls {
    pub(super) fn run(
        &mut self,
        process: &Handle,
        code: u64,
        what: &str,
    ) -> Result<(), TargetError> {
        // SAFETY: the thread runs the code above, which was written there, with the address of
        // what it is told; the types are those of any thread's function.
        let thread = unsafe {
            let start = transmute::<*const (), unsafe extern "system" fn(*mut _) -> u32>(
                (self.code.0 + code) as *const (),
            );
            let told = self.told.0 as *const _;
            CreateRemoteThread(process.get(), null(), 0, Some(start), told, 0, null_mut())
        };
        let thread = Handle::new(thread).ok_or_else(|| last("make a thread in the process"))?;
        // SAFETY: it only waits.
        let ended = |patience| unsafe { WaitForSingleObject(thread.get(), patience) };
        if ended(PATIENCE) == WAIT_OBJECT_0 {
            return Ok(());
        }
        let cancelled = self.cancel(process, &thread);
        if !cancelled && ended(LITTLE) == WAIT_OBJECT_0 {
            return Ok(());
        }
        self.late = Some(Late { thread, cancelled });
        Err(match cancelled {
            true => TargetError::NotNow(format!(
                "the process lets no new thread begin to {what}: its loader is at work, or somebody \
                 holds it"
            )),
            false => TargetError::Unfinished(format!("the process has not finished to {what}")),
        })
    }

    /// Takes back what a thread was asked for that has not begun with it; false where it has, or where that
    /// cannot be seen. Such a thread waits for the loader, or is held by somebody, and comes when nobody
    /// expects it. While it stands, that is noted: if this tool dies, the next one lets it go. What a tool
    /// that died has left was settled before, so nobody else needs the note now.
    fn cancel(&self, process: &Handle, thread: &Handle) -> bool {
        // SAFETY: they only tell numbers.
        let (pid, tid) = unsafe { (GetProcessId(process.get()), GetThreadId(thread.get())) };
        let note = Note::new(process, pid).ok();
        let note = note.filter(|note| note.about(tid).is_ok());
        // SAFETY: the thread is the one that was made for this; it goes on below.
        let before = unsafe { SuspendThread(thread.get()) };
        let before = (before != u32::MAX).then_some(before);
        if let Some(note) = &note {
            note.done(before);
        }
        let waits = before.is_some() && self.take_permission(process, thread);
        if before.is_some() {
            // SAFETY: it takes the suspension back that was made above.
            unsafe { ResumeThread(thread.get()) };
        }
        if let Some(note) = note {
            note.end(process);
        }
        waits
    }

    /// Takes from a thread that stands what allows it to begin; false where it has begun.
    fn take_permission(&self, process: &Handle, thread: &Handle) -> bool {
        let mut registers = Registers(CONTEXT::default());
        registers.0.ContextFlags = CONTEXT_CONTROL_AMD64;
        // SAFETY: the structure is aligned as Windows wants it. Only who stands for good can be asked.
        let stands = unsafe { GetThreadContext(thread.get(), &raw mut registers.0) } != 0;
        let allowed = LiveAddr(self.told.0 + ALLOWED);
        let mut word = [0; 8];
        stands
            && read(process, allowed, &mut word).is_ok()
            && u64::from_le_bytes(word) == 1
            && write(process, allowed, &[0; 8]).is_ok()
    }
}
