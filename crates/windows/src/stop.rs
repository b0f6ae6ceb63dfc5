//! All threads of a process, while they stand.

use std::ops::Range;

use invivo_apply::{Stack, Stopped, TargetError, Thread};
use invivo_image::LiveAddr;
use windows_sys::Win32::System::Diagnostics::Debug::{
    CONTEXT, CONTEXT_CONTROL_AMD64, CONTEXT_INTEGER_AMD64, GetThreadContext,
};
use windows_sys::Win32::System::Threading::{OpenThread, ResumeThread, SuspendThread};

use crate::error::last;
use crate::handle::Handle;
use crate::memory::{pieces, read, write};
use crate::snapshot::threads;
use crate::standing::{Note, RIGHTS};

/// Bytes that are looked at at once.
const CHUNK: u64 = 0x10_0000;

/// `CONTEXT` as Windows wants it.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub(crate) struct Registers(pub(crate) CONTEXT);

/// All threads stand while this is kept.
pub(crate) struct Stand<'p> {
    process: &'p Handle,
    held: Vec<(u32, Handle)>,
    /// How many of them, the first ones, stand since a tool died.
    left: usize,
    /// What the next tool knows them by if this one dies.
    note: Note,
}

impl<'p> Stand<'p> {
    /// `left` is the note of a tool that died: who stands since then does so without a break.
    pub(crate) fn new(
        process: &'p Handle,
        pid: u32,
        left: Option<Note>,
    ) -> Result<Stand<'p>, TargetError> {
        let (held, note) = match left {
            Some(note) => (note.still_standing(pid)?, note),
            None => (Vec::new(), Note::new(process, pid)?),
        };
        let mut stand = Stand {
            process,
            left: held.len(),
            held,
            note,
        };
        // Who still runs may make more; when nobody is new, all stand.
        loop {
            let before = stand.held.len();
            for tid in threads(pid)? {
                if !stand.held.iter().any(|(known, _)| *known == tid) {
                    stand.hold(tid)?;
                }
            }
            if stand.held.len() == before {
                return Ok(stand);
            }
        }
    }

    /// How many threads stand since a tool died.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Holds a thread, unless it ended meanwhile.
    fn hold(&mut self, tid: u32) -> Result<(), TargetError> {
        // SAFETY: it only opens a handle.
        let thread = unsafe { OpenThread(RIGHTS, 0, tid) };
        if let Some(thread) = Handle::new(thread) {
            self.note.about(tid)?;
            // SAFETY: it is resumed when this is dropped, or by the next tool if this one dies.
            let before = unsafe { SuspendThread(thread.get()) };
            let before = (before != u32::MAX).then_some(before);
            self.note.done(before);
            if before.is_some() {
                self.held.push((tid, thread));
            }
        }
        Ok(())
    }

    /// What is in a thread's registers; only who stands for good can be asked.
    fn registers(thread: &Handle) -> Result<CONTEXT, TargetError> {
        let mut registers = Registers(CONTEXT::default());
        registers.0.ContextFlags = CONTEXT_CONTROL_AMD64 | CONTEXT_INTEGER_AMD64;
        // SAFETY: the structure is aligned as Windows wants it.
        let ok = unsafe { GetThreadContext(thread.get(), &raw mut registers.0) };
        if ok == 0 {
            return Err(last("read the registers of a thread"));
        }
        Ok(registers.0)
    }
}

impl Drop for Stand<'_> {
    fn drop(&mut self) {
        for (_, thread) in &self.held {
            // SAFETY: it was suspended by this program, once.
            unsafe { ResumeThread(thread.get()) };
        }
        self.note.end(self.process);
    }
}

impl Stopped for Stand<'_> {
    fn stacks(&mut self) -> Result<Vec<Stack>, TargetError> {
        let stacks = self.held.iter().map(|(tid, thread)| {
            let registers = Stand::registers(thread)?;
            Ok(Stack {
                thread: Thread {
                    tid: tid.cast_signed(),
                    name: String::new(),
                },
                frames: vec![LiveAddr(registers.Rip)],
                unknown: Some("only the innermost place is looked at".to_owned()),
                running: true,
                handlers: false,
            })
        });
        stacks.collect()
    }

    fn as_left(&self) -> bool {
        self.left > 0 && self.left == self.held.len()
    }

    /// Registers of all threads and all memory that can be written are looked through, stacks
    /// among it. What is below the stack pointer of a thread is left by calls that ended: nobody
    /// may keep anything there (Windows has no red zone). What the loader knows of an image is no
    /// use of it: its first address, and that of its entry point, which is never called.
    fn finds(&mut self, range: &Range<LiveAddr>) -> Result<Option<String>, TargetError> {
        let used = |word: u64| range.contains(&LiveAddr(word)) && word != range.start.0;
        let mut tops = Vec::new();
        for (tid, thread) in &self.held {
            let r = Stand::registers(thread)?;
            tops.push((r.Rsp, *tid));
            let words = [
                r.Rip, r.Rax, r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp, r.R8, r.R9, r.R10, r.R11,
                r.R12, r.R13, r.R14, r.R15,
            ];
            if words.into_iter().any(used) {
                return Ok(Some(format!("a register of thread {tid} leads there")));
            }
        }
        let entry = entry_point(self.process, range.start);
        let mut bytes = Vec::new();
        for piece in pieces(self.process).filter(|piece| piece.is_writable() && piece.is_readable())
        {
            if range.contains(&LiveAddr(piece.start)) {
                continue;
            }
            // Where the stacks of several threads are one piece, all but one are looked through whole.
            let tops = tops
                .iter()
                .filter(|(top, _)| (piece.start..piece.end).contains(top));
            let mut at = tops.clone().min().map_or(piece.start, |(top, _)| top & !7);
            while at < piece.end {
                let size = CHUNK.min(piece.end - at);
                bytes.resize(size as usize, 0);
                read(self.process, LiveAddr(at), &mut bytes)?;
                let (words, _) = bytes.as_chunks::<8>();
                let found = words.iter().position(|word| {
                    let word = u64::from_le_bytes(*word);
                    used(word) && Some(word) != entry
                });
                if let Some(found) = found {
                    let place = LiveAddr(at + 8 * found as u64);
                    let owner = tops.filter(|(top, _)| *top <= place.0).max();
                    if let Some((_, tid)) = owner {
                        return Ok(Some(format!(
                            "{place} on the stack of thread {tid} leads there"
                        )));
                    }
                    return Ok(Some(format!("memory at {place} leads there")));
                }
                at += size;
            }
        }
        Ok(None)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        write(self.process, at, bytes)
    }
}

/// The entry point that the headers of an image name.
fn entry_point(process: &Handle, at: LiveAddr) -> Option<u64> {
    let word = |offset: u64| {
        let mut word = [0; 4];
        read(process, at.checked_add(offset)?, &mut word).ok()?;
        Some(u64::from(u32::from_le_bytes(word)))
    };
    let header = word(0x3c)?;
    at.0.checked_add(word(header + 0x18 + 0x10)?)
}
