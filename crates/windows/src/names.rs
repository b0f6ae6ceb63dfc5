//! Objects with names that tools of all sessions see: one that a service runs and one on somebody's
//! desktop change a process one after the other. Anybody may make an object of any name, so that
//! nothing is believed of one that belongs to somebody else. Whoever runs the process that is changed
//! is believed: what tools note concerns nothing but that process, which is theirs to change anyway.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use invivo_apply::TargetError;
use windows_sys::Win32::Foundation::{
    ERROR_ALREADY_EXISTS, GetLastError, HANDLE, INVALID_HANDLE_VALUE, LocalFree,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW,
};
use windows_sys::Win32::Security::{
    EqualSid, GetKernelObjectSecurity, GetSecurityDescriptorOwner, GetTokenInformation,
    IsWellKnownSid, OWNER_SECURITY_INFORMATION, PSID, SECURITY_ATTRIBUTES, TOKEN_OWNER,
    TOKEN_QUERY, TokenOwner, WinBuiltinAdministratorsSid, WinLocalSystemSid,
};
use windows_sys::Win32::System::Memory::{
    CreateFileMappingW, FILE_MAP_READ, FILE_MAP_WRITE, OpenFileMappingW, PAGE_READWRITE,
};
use windows_sys::Win32::System::Threading::{CreateMutexW, GetCurrentProcess, OpenProcessToken};

use crate::error::last;
use crate::handle::Handle;

/// Where memory has its names: all sessions see the first. Windows lets only administrators and
/// services make memory there; other users' is seen in their own session.
const SPACES: [&str; 2] = ["Global", "Local"];

/// To ask who an object belongs to.
const READ_CONTROL: u32 = 0x2_0000;

/// `SDDL_REVISION_1`.
const REVISION: u32 = 1;

/// Words for an owner, as a structure or as a text; the longest has 184 letters.
const WORDS: usize = 256;

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// A mutex that only one tool has at a time; everybody may make one that all sessions see. Where that
/// fails there is none: two tools with a lock each would be as bad as none at all.
pub(crate) fn mutex(name: &str, target: Option<&Handle>) -> Result<Handle, TargetError> {
    let access = Access::new();
    let whole = wide(&format!("Global\\{name}"));
    // SAFETY: the name ends with a zero, and the descriptor is whole.
    let (made, existed) = unsafe {
        let made = CreateMutexW(access.get(), 0, whole.as_ptr());
        (made, GetLastError() == ERROR_ALREADY_EXISTS)
    };
    let made = Handle::new(made).ok_or_else(|| last("take the lock of the tools"))?;
    trusted(made, existed, name, target)
}

/// Shared memory of `size` bytes; new, or what is there already.
pub(crate) fn memory(name: &str, size: u32, target: &Handle) -> Result<Handle, TargetError> {
    let access = Access::new();
    let mut failed = TargetError::Unsupported("no memory has a name".to_owned());
    for space in SPACES {
        let whole = wide(&format!("{space}\\{name}"));
        // SAFETY: as above; the memory is no file's.
        let (made, existed) = unsafe {
            let (file, high) = (INVALID_HANDLE_VALUE, 0);
            let made = CreateFileMappingW(
                file,
                access.get(),
                PAGE_READWRITE,
                high,
                size,
                whole.as_ptr(),
            );
            (made, GetLastError() == ERROR_ALREADY_EXISTS)
        };
        match Handle::new(made) {
            Some(made) => return trusted(made, existed, name, Some(target)),
            None => failed = last("note which threads stand"),
        }
    }
    Err(failed)
}

/// The same if it is there, and may be believed.
pub(crate) fn known_memory(name: &str, target: &Handle) -> Option<Handle> {
    SPACES.into_iter().find_map(|space| {
        let whole = wide(&format!("{space}\\{name}"));
        let rights = FILE_MAP_READ | FILE_MAP_WRITE | READ_CONTROL;
        // SAFETY: the name ends with a zero.
        let found = Handle::new(unsafe { OpenFileMappingW(rights, 0, whole.as_ptr()) })?;
        is_believed(&found, Some(target)).then_some(found)
    })
}

fn trusted(
    made: Handle,
    existed: bool,
    name: &str,
    target: Option<&Handle>,
) -> Result<Handle, TargetError> {
    if existed && !is_believed(&made, target) {
        return Err(TargetError::Unsupported(format!(
            "{name}, by which tools know of each other, belongs to somebody else; find out who made it \
             and end that"
        )));
    }
    Ok(made)
}

/// True for what administrators, the system, whoever runs this tool or whoever runs the target made.
fn is_believed(object: &Handle, target: Option<&Handle>) -> bool {
    // Words, so that it is aligned as a descriptor is.
    let mut descriptor = [0_u64; WORDS];
    let (place, size) = (descriptor.as_mut_ptr().cast(), size_of_val(&descriptor));
    let (mut needed, mut owner, mut inherited) = (0, null_mut(), 0);
    // SAFETY: as many bytes are filled as there are; the owner lies in the descriptor.
    unsafe {
        let asked = GetKernelObjectSecurity(
            object.get(),
            OWNER_SECURITY_INFORMATION,
            place,
            size as u32,
            &raw mut needed,
        );
        if asked == 0
            || GetSecurityDescriptorOwner(place, &raw mut owner, &raw mut inherited) == 0
            || owner.is_null()
        {
            return false;
        }
        let known = [WinBuiltinAdministratorsSid, WinLocalSystemSid];
        let own = GetCurrentProcess();
        let runs = [Some(own), target.map(Handle::get)].into_iter().flatten();
        known.into_iter().any(|one| IsWellKnownSid(owner, one) != 0)
            || runs
                .filter_map(|process| with_owner(process, &mut |one| EqualSid(owner, one) != 0))
                .any(|same| same)
    }
}

/// Calls `ask` with whoever owns what a process makes.
fn with_owner<R>(process: HANDLE, ask: &mut dyn FnMut(PSID) -> R) -> Option<R> {
    let mut token: HANDLE = null_mut();
    let mut words = [0_u64; WORDS];
    let mut needed = 0;
    // SAFETY: it only opens a handle.
    let opened = unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) };
    let token = Handle::new(token).filter(|_| opened != 0)?;
    let (place, size) = (words.as_mut_ptr().cast::<c_void>(), size_of_val(&words));
    // SAFETY: as many bytes are filled as there are, and they begin with the structure.
    unsafe {
        let (token, size) = (token.get(), size as u32);
        if GetTokenInformation(token, TokenOwner, place, size, &raw mut needed) == 0 {
            return None;
        }
        Some(ask((*place.cast::<TOKEN_OWNER>()).Owner))
    }
}

/// Who may use an object: administrators, the system, and whoever makes it.
struct Access {
    attributes: SECURITY_ATTRIBUTES,
}

impl Access {
    fn new() -> Access {
        // SAFETY: it only gives a number that stands for this process.
        let process = unsafe { GetCurrentProcess() };
        let own = with_owner(process, &mut |own| {
            let mut text = null_mut();
            // SAFETY: the text is made by the call, ends with a zero, and is given back.
            unsafe {
                if ConvertSidToStringSidW(own, &raw mut text) == 0 {
                    return String::new();
                }
                let length = (0..WORDS).take_while(|at| *text.add(*at) != 0).count();
                let own = String::from_utf16_lossy(std::slice::from_raw_parts(text, length));
                LocalFree(text.cast());
                format!("(A;;GA;;;{own})")
            }
        });
        let own = own.unwrap_or_default();
        let text = wide(&format!("D:(A;;GA;;;BA)(A;;GA;;;SY){own}"));
        let mut descriptor = null_mut();
        // SAFETY: the text ends with a zero. Where it is not understood there is no descriptor, and the
        // object is made as others of this program are.
        unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                REVISION,
                &raw mut descriptor,
                null_mut(),
            );
        }
        Access {
            attributes: SECURITY_ATTRIBUTES {
                nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
                lpSecurityDescriptor: descriptor,
                bInheritHandle: 0,
            },
        }
    }

    fn get(&self) -> *const SECURITY_ATTRIBUTES {
        match self.attributes.lpSecurityDescriptor.is_null() {
            true => null(),
            false => &raw const self.attributes,
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // SAFETY: it was made for this, and nobody else has it.
        unsafe { LocalFree(self.attributes.lpSecurityDescriptor) };
    }
}
