//! Memory of the process, through `/proc/PID/mem`.
//!
//! Kernels may keep that file from writing where the process itself may not write
//! (`CONFIG_PROC_MEM_FORCE_PTRACE`, `CONFIG_PROC_MEM_NO_FORCE`), and policies may keep it from being opened for
//! writing at all. Then what the process may write is written by `process_vm_writev`, and everything else
//! by a thread that stands, word by word (`PTRACE_POKEDATA`), which no kernel restricts.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;

use crate::error::system;
use crate::ptrace::Standing;

/// Bytes that a thread can write at a time.
const WORD: u64 = 8;

/// The process's memory, by the number of a thread that lives.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    pid: i32,
    /// True once it is known that the file does not write wherever it is asked to.
    restricted: Cell<bool>,
}

impl Memory {
    pub(crate) fn open(pid: i32, writable: bool) -> Result<Memory, TargetError> {
        let path = format!("/proc/{pid}/mem");
        let open = |writable| OpenOptions::new().read(true).write(writable).open(&path);
        let (file, restricted) = match (open(writable), writable) {
            // Who may only read it may still trace.
            (Err(_), true) => (open(false), true),
            (file, _) => (file, false),
        };
        let file = file.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => TargetError::Gone(pid),
            _ => system(format!("open the memory of process {pid}"), error),
        })?;
        Ok(Memory {
            file,
            pid,
            restricted: Cell::new(restricted),
        })
    }

    /// The open file once more.
    pub(crate) fn file(&self) -> Result<File, TargetError> {
        let file = self.file.try_clone();
        file.map_err(|error| system(format!("keep the memory of process {}", self.pid), error))
    }

    pub(crate) fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        let size = bytes.len();
        self.file
            .read_exact_at(bytes, at.0)
            .map_err(|source| self.error("read", at, size, source))
    }

    /// Reads as much as there is from `at` on.
    pub(crate) fn read_some(&self, at: LiveAddr, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        let mut done = 0;
        while done < size {
            match self.file.read_at(&mut bytes[done..], at.0 + done as u64) {
                Ok(0) | Err(_) => break,
                Ok(more) => done += more,
            }
        }
        bytes.truncate(done);
        bytes
    }

    /// Writes, where the kernel lets us also where the process itself may not: it makes the page
    /// private then.
    pub(crate) fn write(&self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        let failed = |source| self.error("write", at, bytes.len(), source);
        if !self.restricted.get() {
            let written = self.file.write_all_at(bytes, at.0).map_err(failed);
            if matches!(written, Ok(()) | Err(TargetError::Gone(_))) {
                return written;
            }
        }
        let to = RemoteIoVec {
            base: usize::try_from(at.0).unwrap_or(usize::MAX),
            len: bytes.len(),
        };
        let written = process_vm_writev(Pid::from_raw(self.pid), &[IoSlice::new(bytes)], &[to]);
        match written {
            Ok(size) if size == bytes.len() => {
                self.restricted.set(true);
                Ok(())
            }
            Ok(_) => Err(failed(io::ErrorKind::PermissionDenied.into())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The same with a thread of the process that stands: also where the kernel does not let us.
    pub(crate) fn write_by(
        &self,
        thread: &Standing,
        at: LiveAddr,
        bytes: &[u8],
    ) -> Result<(), TargetError> {
        match self.write(at, bytes) {
            Err(TargetError::Memory { .. }) => {}
            other => return other,
        }
        let end = at.0.saturating_add(bytes.len() as u64);
        let mut word_at = at.0 - at.0 % WORD;
        while word_at < end {
            let mut now = [0; 8];
            self.read(LiveAddr(word_at), &mut now)?;
            let mut new = now;
            for (byte, place) in new.iter_mut().zip(word_at..) {
                let index = place
                    .checked_sub(at.0)
                    .and_then(|i| usize::try_from(i).ok());
                if let Some(given) = index.and_then(|index| bytes.get(index)) {
                    *byte = *given;
                }
            }
            // Most words of new memory are zero, and of a record that changes the same.
            if new != now {
                thread
                    .poke(word_at, u64::from_le_bytes(new))
                    .map_err(|error| self.error("write", at, bytes.len(), error.into()))?;
            }
            word_at += WORD;
        }
        self.restricted.set(true);
        Ok(())
    }

    fn error(
        &self,
        action: &'static str,
        at: LiveAddr,
        size: usize,
        source: io::Error,
    ) -> TargetError {
        // The memory of a process that has ended, or executed another program, is empty.
        let ended = matches!(
            source.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero
        );
        if ended || source.raw_os_error() == Some(libc::ESRCH) {
            return TargetError::Gone(self.pid);
        }
        TargetError::Memory {
            action,
            at,
            size,
            source,
        }
    }
}
