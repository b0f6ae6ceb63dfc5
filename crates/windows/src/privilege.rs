//! What a tool of an administrator may do that it has to ask for.

use std::ffi::c_void;
use std::mem::transmute;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{ERROR_SUCCESS, GetLastError, HANDLE};
use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, LUID_AND_ATTRIBUTES, LookupPrivilegeValueW, SE_PRIVILEGE_ENABLED,
    TOKEN_ADJUST_PRIVILEGES, TOKEN_PRIVILEGES, TOKEN_QUERY,
};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenProcess, OpenProcessToken, PROCESS_QUERY_LIMITED_INFORMATION,
};

use crate::handle::Handle;

/// Lets this program open processes of others, services among them (`SeDebugPrivilege`); false where
/// whoever runs it may not.
pub(crate) fn open_others() -> bool {
    let name: Vec<u16> = "SeDebugPrivilege\0".encode_utf16().collect();
    let mut token: HANDLE = null_mut();
    let rights = TOKEN_ADJUST_PRIVILEGES | TOKEN_QUERY;
    // SAFETY: it only opens a handle.
    let opened = unsafe { OpenProcessToken(GetCurrentProcess(), rights, &raw mut token) };
    let Some(token) = Handle::new(token).filter(|_| opened != 0) else {
        return false;
    };
    let mut wanted = TOKEN_PRIVILEGES {
        PrivilegeCount: 1,
        Privileges: [LUID_AND_ATTRIBUTES {
            Attributes: SE_PRIVILEGE_ENABLED,
            ..LUID_AND_ATTRIBUTES::default()
        }],
    };
    // SAFETY: the name ends with a zero, and one privilege is there.
    unsafe {
        let found =
            LookupPrivilegeValueW(null(), name.as_ptr(), &raw mut wanted.Privileges[0].Luid);
        found != 0
            && AdjustTokenPrivileges(
                token.get(),
                0,
                &raw const wanted,
                0,
                null_mut(),
                null_mut(),
            ) != 0
            // It also succeeds where the privilege is not given.
            && GetLastError() == ERROR_SUCCESS
    }
}

/// `ProcessProtectionLevelInfo`.
const PROTECTION_LEVEL: i32 = 7;

/// `PROTECTION_LEVEL_NONE`.
const UNPROTECTED: u32 = 0xffff_fffe;

type GetInformation = unsafe extern "system" fn(HANDLE, i32, *mut c_void, u32) -> i32;

/// True for a process that Windows protects from every other program, whoever runs it. Systems before
/// Windows 8 protect none in this way.
#[must_use]
pub fn is_protected(pid: u32) -> bool {
    // SAFETY: both texts end with a zero; the library is in every process. It only opens a handle.
    let (ask, process) = unsafe {
        let library = GetModuleHandleA(c"kernel32.dll".as_ptr().cast());
        let ask = GetProcAddress(library, c"GetProcessInformation".as_ptr().cast());
        (ask, OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid))
    };
    let (Some(ask), Some(process)) = (ask, Handle::new(process)) else {
        return false;
    };
    let mut level = UNPROTECTED;
    // SAFETY: the function is of this type, and as many bytes are filled as there are.
    let asked = unsafe {
        let ask = transmute::<unsafe extern "system" fn() -> isize, GetInformation>(ask);
        let place = (&raw mut level).cast();
        ask(
            process.get(),
            PROTECTION_LEVEL,
            place,
            size_of::<u32>() as u32,
        )
    };
    asked != 0 && level != UNPROTECTED
}
