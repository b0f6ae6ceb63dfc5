//! What a thread does in the target that is made there for a moment.

use std::ffi::CString;
use std::mem::transmute;
use std::ptr::{addr_of, null, null_mut};

use invivo_apply::TargetError;
use invivo_image::LiveAddr;
use windows_sys::Win32::Foundation::WAIT_OBJECT_0;
use windows_sys::Win32::System::LibraryLoader::{
    DONT_RESOLVE_DLL_REFERENCES, GetModuleHandleA, GetProcAddress, LOAD_LIBRARY_FLAGS,
};
use windows_sys::Win32::System::Memory::PAGE_EXECUTE_READ;
use windows_sys::Win32::System::Threading::{CreateRemoteThread, WaitForSingleObject};

use crate::error::last;
use crate::handle::Handle;
use crate::memory::{PAGE, free, make, opened, read, set, write};

/// Milliseconds that such a thread has; it never takes one, unless the loader is busy.
const PATIENCE: u32 = 10_000;

/// Bytes for what a call is told, in which its answer comes back.
const ROOM: u64 = 0x1_0000;

// `call` calls a function with up to four arguments, and asks what the last error was;
// `store` makes one store of 2, 4 or 8 bytes. Both take the address of what they are told, use
// nothing of where they are, and keep what a function has to keep.
std::arch::global_asm!(
    ".globl invivo_call",
    "invivo_call:",
    "push rbx",
    "sub rsp, 0x20",
    "mov rbx, rcx",
    "mov rcx, [rbx+0x10]",
    "mov rdx, [rbx+0x18]",
    "mov r8, [rbx+0x20]",
    "mov r9, [rbx+0x28]",
    "call qword ptr [rbx]",
    "mov [rbx+0x30], rax",
    "call qword ptr [rbx+8]",
    "mov [rbx+0x38], rax",
    "xor eax, eax",
    "add rsp, 0x20",
    "pop rbx",
    "ret",
    ".globl invivo_store",
    "invivo_store:",
    "mov rax, [rcx+8]",
    "mov rdx, [rcx+0x10]",
    "mov rcx, [rcx]",
    "cmp rdx, 4",
    "je 4f",
    "ja 8f",
    "mov [rcx], ax",
    "jmp 9f",
    "4:",
    "mov [rcx], eax",
    "jmp 9f",
    "8:",
    "mov [rcx], rax",
    "9:",
    "xor eax, eax",
    "ret",
    ".globl invivo_end",
    "invivo_end:",
);

unsafe extern "C" {
    static invivo_call: u8;
    static invivo_store: u8;
    static invivo_end: u8;
}

/// The code above in the target, and room for what it is told.
#[derive(Debug)]
pub(crate) struct Calls {
    code: LiveAddr,
    told: LiveAddr,
    /// Where `store` begins in the code.
    store: u64,
    /// False once a thread did not end: it may still need the memory.
    idle: bool,
}

impl Calls {
    pub(crate) fn new(process: &Handle) -> Result<Calls, TargetError> {
        let (call, store, end) = (
            addr_of!(invivo_call),
            addr_of!(invivo_store),
            addr_of!(invivo_end),
        );
        let size = end as usize - call as usize;
        // SAFETY: the code lies between the two, and nobody changes it.
        let code = unsafe { std::slice::from_raw_parts(call, size) };
        let at = make(process, None, PAGE + ROOM).ok_or_else(|| last("make memory"))?;
        let calls = Calls {
            code: at,
            told: LiveAddr(at.0 + PAGE),
            store: store as u64 - call as u64,
            idle: true,
        };
        // It is never writable while it runs.
        write(process, at, code)?;
        set(process, at.0..at.0 + PAGE, PAGE_EXECUTE_READ)?;
        Ok(calls)
    }

    /// Gives the memory back.
    pub(crate) fn end(&self, process: &Handle) {
        if self.idle {
            // Nobody needs it; what is left of a process that ended is gone anyway.
            let _ = free(process, self.code);
        }
    }

    fn run(&mut self, process: &Handle, code: u64, what: &str) -> Result<(), TargetError> {
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
        let ended = unsafe { WaitForSingleObject(thread.get(), PATIENCE) };
        if ended != WAIT_OBJECT_0 {
            self.idle = false;
            let text = format!("the process has not finished to {what}");
            return Err(TargetError::Unfinished(text));
        }
        Ok(())
    }

    /// Calls a function of `kernel32.dll`: its answer, and what the last error was then.
    fn kernel(
        &mut self,
        process: &Handle,
        function: &str,
        arguments: [u64; 3],
        what: &str,
    ) -> Result<(u64, i32), TargetError> {
        if !self.idle {
            let text = "a call that was made in the process has not returned yet";
            return Err(TargetError::Unfinished(text.to_owned()));
        }
        let mut told = Vec::new();
        let [first, second, third] = arguments;
        let (call, error) = (address(function)?, address("GetLastError")?);
        for word in [call, error, first, second, third, 0, 0, 0] {
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
        if !matches!(bytes.len(), 2 | 4 | 8) || inside > 8 || !self.idle {
            let text = format!("{} bytes at {at} cannot be stored at once", bytes.len());
            return Err(TargetError::Unsupported(text));
        }
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let mut told = at.0.to_le_bytes().to_vec();
        told.extend(value);
        told.extend((bytes.len() as u64).to_le_bytes());
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
