//! Processes, their threads and their images, as Windows lists them.

use std::mem::size_of;

use invivo_apply::TargetError;
use invivo_apply::hpat::HostImage;
use invivo_image::LiveAddr;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CREATE_TOOLHELP_SNAPSHOT_FLAGS, CreateToolhelp32Snapshot, MODULEENTRY32W, Module32FirstW,
    Module32NextW, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPMODULE,
    TH32CS_SNAPPROCESS, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};

use crate::error::last;
use crate::handle::Handle;

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub pid: u32,
    /// The name of its program.
    pub name: String,
}

fn snapshot(what: CREATE_TOOLHELP_SNAPSHOT_FLAGS, pid: u32) -> Result<Handle, TargetError> {
    // SAFETY: it only makes a list, which the handle keeps.
    let list = unsafe { CreateToolhelp32Snapshot(what, pid) };
    Handle::new(list).ok_or_else(|| last("list what runs"))
}

/// A text that ends with a zero.
fn text(wide: &[u16]) -> String {
    let end = wide.iter().position(|unit| *unit == 0);
    String::from_utf16_lossy(&wide[..end.unwrap_or(wide.len())])
}

/// All processes.
///
/// # Errors
/// When Windows does not list them.
pub fn processes() -> Result<Vec<Running>, TargetError> {
    let list = snapshot(TH32CS_SNAPPROCESS, 0)?;
    let mut entry = PROCESSENTRY32W {
        dwSize: size_of::<PROCESSENTRY32W>() as u32,
        ..PROCESSENTRY32W::default()
    };
    let mut found = Vec::new();
    // SAFETY: the entry says how large it is.
    let mut more = unsafe { Process32FirstW(list.get(), &raw mut entry) };
    while more != 0 {
        found.push(Running {
            pid: entry.th32ProcessID,
            name: text(&entry.szExeFile),
        });
        // SAFETY: as above.
        more = unsafe { Process32NextW(list.get(), &raw mut entry) };
    }
    Ok(found)
}

/// The threads of a process.
pub(crate) fn threads(pid: u32) -> Result<Vec<u32>, TargetError> {
    let list = snapshot(TH32CS_SNAPTHREAD, 0)?;
    let mut entry = THREADENTRY32 {
        dwSize: size_of::<THREADENTRY32>() as u32,
        ..THREADENTRY32::default()
    };
    let mut found = Vec::new();
    // SAFETY: the entry says how large it is.
    let mut more = unsafe { Thread32First(list.get(), &raw mut entry) };
    while more != 0 {
        if entry.th32OwnerProcessID == pid {
            found.push(entry.th32ThreadID);
        }
        // SAFETY: as above.
        more = unsafe { Thread32Next(list.get(), &raw mut entry) };
    }
    Ok(found)
}

/// The images of a process.
pub(crate) fn images(pid: u32) -> Result<Vec<HostImage>, TargetError> {
    let list = snapshot(TH32CS_SNAPMODULE, pid)?;
    let mut entry = MODULEENTRY32W {
        dwSize: size_of::<MODULEENTRY32W>() as u32,
        ..MODULEENTRY32W::default()
    };
    let mut found = Vec::new();
    // SAFETY: the entry says how large it is.
    let mut more = unsafe { Module32FirstW(list.get(), &raw mut entry) };
    while more != 0 {
        let start = entry.modBaseAddr as u64;
        let end = start.saturating_add(u64::from(entry.modBaseSize));
        found.push(HostImage {
            path: text(&entry.szExePath),
            range: LiveAddr(start)..LiveAddr(end),
        });
        // SAFETY: as above.
        more = unsafe { Module32NextW(list.get(), &raw mut entry) };
    }
    Ok(found)
}
