//! Memory of the process, through `/proc/PID/mem`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use invivo_apply::TargetError;
use invivo_image::LiveAddr;

use crate::error::system;

/// The process's memory.
#[derive(Debug)]
pub(crate) struct Memory {
    file: File,
    pid: i32,
}

impl Memory {
    pub(crate) fn open(pid: i32, writable: bool) -> Result<Memory, TargetError> {
        let path = format!("/proc/{pid}/mem");
        let file = OpenOptions::new().read(true).write(writable).open(path);
        let file = file.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => TargetError::Gone(pid),
            _ => system(format!("open the memory of process {pid}"), error),
        })?;
        Ok(Memory { file, pid })
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

    /// Writes, also where the process itself may not: the kernel makes the page private.
    pub(crate) fn write(&self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        let size = bytes.len();
        self.file
            .write_all_at(bytes, at.0)
            .map_err(|source| self.error("write", at, size, source))
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
