//! What a thread does in the target that is made there for a moment.

mod code;
mod late;

use std::ffi::CString;

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use windows_sys::Win32::Foundation::WAIT_OBJECT_0;
use windows_sys::Win32::System::LibraryLoader::{
    DONT_RESOLVE_DLL_REFERENCES, GetModuleHandleA, GetProcAddress, LOAD_LIBRARY_FLAGS,
};
use windows_sys::Win32::System::Memory::PAGE_EXECUTE_READ;
use windows_sys::Win32::System::Threading::WaitForSingleObject;

use crate::error::last;
use crate::handle::Handle;
use crate::memory::{PAGE, free, make, opened, read, set, write};
use code::code;
use late::Late;
pub(crate) use late::take_back;

/// Bytes for what a call is told, in which its answer comes back.
const ROOM: u64 = 0x1_0000;

/// Where in it the word is that allows the call: 1 until a thread has taken it.
const ALLOWED: u64 = 0x40;

/// Code of ours in the target, and room for what it is told.
#[derive(Debug)]
pub(crate) struct Calls {
    code: LiveAddr,
    told: LiveAddr,
    /// Where `store` begins in the code.
    store: u64,
    /// A thread that did not end: it may still need the memory.
    late: Option<Late>,
}

impl Calls {
    pub(crate) fn new(process: &Handle) -> Result<Calls, TargetError> {
        let (code, store) = code();
        let at = make(process, None, PAGE + ROOM).ok_or_else(|| last("make memory"))?;
        let calls = Calls {
            code: at,
            told: LiveAddr(at.0 + PAGE),
            store,
            late: None,
        };
        // It is never writable while it runs.
        write(process, at, code)?;
        set(process, at.0..at.0 + PAGE, PAGE_EXECUTE_READ)?;
        Ok(calls)
    }

    /// Gives the memory back.
    pub(crate) fn end(&self, process: &Handle) {
        // SAFETY: it does not wait.
        let ended = |late: &Late| unsafe { WaitForSingleObject(late.thread.get(), 0) };
        if self
            .late
            .as_ref()
            .is_none_or(|late| ended(late) == WAIT_OBJECT_0)
        {
            // Nobody needs it; what is left of a process that ended is gone anyway.
            let _ = free(process, self.code);
        }
    }

    /// True if another one has to be made: a thread that does nothing any more still needs this.
    pub(crate) fn is_spent(&self) -> bool {
        self.late.as_ref().is_some_and(|late| late.cancelled)
    }

    /// What a thread was told is not written over while that thread may still read it.
    fn nobody_is_late(&self) -> Result<(), TargetError> {
        match self.late {
            None => Ok(()),
            Some(_) => Err(TargetError::Unfinished(
                "a call that was made in the process has not returned yet".to_owned(),
            )),
        }
    }

    /// Calls a function of `kernel32.dll`: its answer, and what the last error was then.
    fn kernel(
        &mut self,
        process: &Handle,
        function: &str,
        arguments: [u64; 3],
        what: &str,
    ) -> Result<(u64, i32), TargetError> {
        self.nobody_is_late()?;
        let mut told = Vec::new();
        let [first, second, third] = arguments;
        let (call, error) = (address(function)?, address("GetLastError")?);
        for word in [call, error, first, second, third, 0, 0, 0, 1] {
            told.extend(word.to_le_bytes());
        }
        write(process, self.told, &told)?;
        self.run(process, 0, what)?;
        let mut answer = [0; 16];
        read(process, LiveAddr(self.told.0 + 0x30), &mut answer)?;
        let [value, error] = [0, 8].map(|at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&answer[at..at + 8]);
            u64::from_le_bytes(word)
        });
        Ok((value, (error as u32).cast_signed()))
    }

    /// Lets the loader map and relocate an image. Nothing of it runs: it has no state of its own,
    /// and what it imports is taken from its base.
    pub(crate) fn load(&mut self, process: &Handle, path: &str) -> Result<LiveAddr, TargetError> {
        self.load_as(process, path, DONT_RESOLVE_DLL_REFERENCES)
    }

    /// Lets the loader load an image as any library.
    pub(crate) fn load_whole(
        &mut self,
        process: &Handle,
        path: &str,
    ) -> Result<LiveAddr, TargetError> {
        self.load_as(process, path, 0)
    }

    fn load_as(
        &mut self,
        process: &Handle,
        path: &str,
        flags: LOAD_LIBRARY_FLAGS,
    ) -> Result<LiveAddr, TargetError> {
        self.nobody_is_late()?;
        let wide: Vec<u8> = path
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        let name = LiveAddr(self.told.0 + 0x100);
        if wide.len() as u64 > ROOM - 0x100 {
            return Err(TargetError::Unsupported(format!(
                "the name {path} is too long"
            )));
        }
        write(process, name, &wide)?;
        let arguments = [name.0, 0, u64::from(flags)];
        let (at, error) = self.kernel(process, "LoadLibraryExW", arguments, "load the patch")?;
        // Where nothing runs, the lowest bits may say how it was mapped.
        match at & !0xffff {
            0 => Err(TargetError::System {
                what: format!("load {path}"),
                source: std::io::Error::from_raw_os_error(error),
            }),
            at => Ok(LiveAddr(at)),
        }
    }

    pub(crate) fn unload(&mut self, process: &Handle, at: LiveAddr) -> Result<(), TargetError> {
        let (done, error) = self.kernel(process, "FreeLibrary", [at.0, 0, 0], "unload")?;
        if done & 0xffff_ffff == 0 {
            return Err(TargetError::System {
                what: "unload a patch".to_owned(),
                source: std::io::Error::from_raw_os_error(error),
            });
        }
        Ok(())
    }

    /// Stores up to 8 bytes of an aligned word, seen as a whole by every thread.
    pub(crate) fn store(
        &mut self,
        process: &Handle,
        at: LiveAddr,
        bytes: &[u8],
    ) -> Result<(), TargetError> {
        let inside = at.0 % 8 + bytes.len() as u64;
        if !matches!(bytes.len(), 2 | 4 | 8) || inside > 8 {
            let text = format!("{} bytes at {at} cannot be stored at once", bytes.len());
            return Err(TargetError::Unsupported(text));
        }
        self.nobody_is_late()?;
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let mut told = at.0.to_le_bytes().to_vec();
        told.extend(value);
        told.extend((bytes.len() as u64).to_le_bytes());
        told.resize(ALLOWED as usize, 0);
        told.extend(1_u64.to_le_bytes());
        write(process, self.told, &told)?;
        let store = self.store;
        opened(process, at..LiveAddr(at.0 + bytes.len() as u64), || {
            self.run(process, store, "make a store")
        })
    }
}

/// Where a function of `kernel32.dll` is: at the same place in every process.
fn address(name: &str) -> Result<u64, TargetError> {
    let unknown = || TargetError::Unsupported(format!("kernel32.dll has no {name}"));
    let name = CString::new(name).map_err(|_| unknown())?;
    // SAFETY: both texts end with a zero; the library is in every process.
    let found = unsafe {
        let library = GetModuleHandleA(c"kernel32.dll".as_ptr().cast());
        GetProcAddress(library, name.as_ptr().cast())
    };
    found
        .map(|function| function as usize as u64)
        .ok_or_else(unknown)
}
