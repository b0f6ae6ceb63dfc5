//! Processes, their threads and their images, as Windows lists them.

use std::collections::BTreeMap;
use std::mem::size_of;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use invivo_apply::TargetError;
use invivo_apply::hpat::HostImage;
use invivo_image::LiveAddr;
use windows_sys::Win32::Foundation::{FILETIME, HMODULE, WAIT_TIMEOUT};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CREATE_TOOLHELP_SNAPSHOT_FLAGS, CreateToolhelp32Snapshot, MODULEENTRY32W, Module32FirstW,
    Module32NextW, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPMODULE,
    TH32CS_SNAPMODULE32, TH32CS_SNAPPROCESS, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First,
    Thread32Next,
};
use windows_sys::Win32::System::ProcessStatus::K32GetModuleFileNameExW;
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, IsWow64Process, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_SYNCHRONIZE, WaitForSingleObject,
};

use crate::error::last;
use crate::handle::Handle;

/// What Windows says while the loader of a process is at work: `ERROR_BAD_LENGTH`, and of a process that
/// has just started `ERROR_PARTIAL_COPY` or `ERROR_NOACCESS`, since it has no list of images yet.
const AT_WORK: [i32; 3] = [CHANGING, 299, 998];

/// `ERROR_BAD_LENGTH`: images come and go while the list is made, so that there is one at once.
const CHANGING: i32 = 24;

/// How often a list is asked for again that could not be made, every two milliseconds: about a second.
const TRIES: u32 = 500;

/// Processes of which no list could be made in that time, by number and start. A suspended one may stay so
/// for days: whoever has waited for it once does not wait again. Another one may have its number later.
static NOT_READY: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());

/// True for a process that was waited for in vain, so that there is no use in asking it again at once.
#[must_use]
pub fn is_not_ready(pid: u32) -> bool {
    let known = NOT_READY.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get(&pid).copied();
    known.is_some() && known == started(pid)
}

fn note_ready(pid: u32, ready: bool) {
    // One whose start is not known is waited for each time.
    let not_ready = if ready { None } else { started(pid) };
    let mut known = NOT_READY.lock().unwrap_or_else(PoisonError::into_inner);
    match not_ready {
        Some(start) => known.insert(pid, start),
        None => known.remove(&pid),
    };
}

/// The longest name of a file, in words.
const LONGEST: usize = 0x8000;

/// A process that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub pid: u32,
    /// The name of its program.
    pub name: String,
}

fn snapshot(what: CREATE_TOOLHELP_SNAPSHOT_FLAGS, pid: u32) -> Result<Handle, TargetError> {
    let mut tries = TRIES;
    loop {
        // SAFETY: it only makes a list, which the handle keeps.
        let list = unsafe { CreateToolhelp32Snapshot(what, pid) };
        if let Some(list) = Handle::new(list) {
            note_ready(pid, true);
            return Ok(list);
        }
        let error = last("list what runs");
        // It is asked again, as Windows recommends.
        let code = match &error {
            TargetError::System { source, .. } => source.raw_os_error(),
            _ => None,
        };
        let again = code.is_some_and(|code| AT_WORK.contains(&code));
        if code != Some(CHANGING) && is_not_ready(pid) {
            tries = 0;
        }
        if !again || tries == 0 && pid == 0 {
            return Err(error);
        }
        if tries == 0 {
            note_ready(pid, false);
            return Err(TargetError::NotNow(format!(
                "process {pid} has no list of its images: it has only just started, was started suspended, \
                 or is about to end ({error})"
            )));
        }
        tries -= 1;
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A text that ends with a zero.
fn text(wide: &[u16]) -> String {
    let end = wide.iter().position(|unit| *unit == 0);
    String::from_utf16_lossy(&wide[..end.unwrap_or(wide.len())])
}

/// All processes in which anything runs: one that has ended is known for as long as somebody has a handle
/// of it, and has no threads.
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
        if entry.cntThreads > 0 {
            found.push(Running {
                pid: entry.th32ProcessID,
                name: text(&entry.szExeFile),
            });
        }
        // SAFETY: as above.
        more = unsafe { Process32NextW(list.get(), &raw mut entry) };
    }
    Ok(found)
}

/// When a process started, in Windows' units; `None` where it runs no more, or may not be asked. With its
/// number that tells it from all others.
#[must_use]
pub fn started(pid: u32) -> Option<u64> {
    let rights = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
    // SAFETY: it only opens a handle.
    let process = Handle::new(unsafe { OpenProcess(rights, 0, pid) })?;
    let [mut start, mut end, mut kernel, mut user] = [FILETIME::default(); 4];
    // SAFETY: it does not wait, and fills four structures.
    let runs = unsafe {
        let (start, end) = (&raw mut start, &raw mut end);
        let (kernel, user) = (&raw mut kernel, &raw mut user);
        WaitForSingleObject(process.get(), 0) == WAIT_TIMEOUT
            && GetProcessTimes(process.get(), start, end, kernel, user) != 0
    };
    let high = u64::from(start.dwHighDateTime);
    runs.then_some(high << 32 | u64::from(start.dwLowDateTime))
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

/// The images of a process, those for 32 bits among them.
pub(crate) fn images(process: &Handle, pid: u32) -> Result<Vec<HostImage>, TargetError> {
    let list = snapshot(TH32CS_SNAPMODULE | TH32CS_SNAPMODULE32, pid)?;
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
        let mut path = text(&entry.szExePath);
        if path.encode_utf16().count() + 1 >= entry.szExePath.len() {
            // There may be more of it.
            path = whole_path(process, entry.hModule).unwrap_or(path);
        }
        found.push(HostImage {
            path,
            range: LiveAddr(start)..LiveAddr(end),
        });
        // SAFETY: as above.
        more = unsafe { Module32NextW(list.get(), &raw mut entry) };
    }
    Ok(found)
}

/// The file of an image, however long its name is.
fn whole_path(process: &Handle, module: HMODULE) -> Option<String> {
    let mut name = vec![0; LONGEST];
    // SAFETY: as many words are filled as there are.
    let length = unsafe {
        K32GetModuleFileNameExW(process.get(), module, name.as_mut_ptr(), LONGEST as u32)
    };
    (length > 0).then(|| text(&name))
}

/// True for a process that runs a program for 32 bits.
pub(crate) fn is_narrow(process: &Handle) -> bool {
    let mut narrow = 0;
    // SAFETY: it only asks.
    unsafe { IsWow64Process(process.get(), &raw mut narrow) != 0 && narrow != 0 }
}
