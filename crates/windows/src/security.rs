//! Access lists of files.

use std::io;
use std::os::windows::ffi::OsStrExt;
use std::path::Path;

use windows_sys::Win32::Security::{DACL_SECURITY_INFORMATION, GetFileSecurityW, SetFileSecurityW};

/// The longest security descriptor that there can be.
const LONGEST: usize = 1 << 17;

fn wide(path: &Path) -> Vec<u16> {
    path.as_os_str().encode_wide().chain([0]).collect()
}

/// Gives `to` the access list of `from`.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (wide(from), wide(to));
    // Words, so that it is aligned as a descriptor is.
    let mut descriptor = vec![0_u64; LONGEST / 8];
    let (place, mut needed) = (descriptor.as_mut_ptr().cast(), 0);
    // SAFETY: the name ends with a zero; as many bytes are filled as there are.
    let ok = unsafe {
        GetFileSecurityW(
            from.as_ptr(),
            DACL_SECURITY_INFORMATION,
            place,
            LONGEST as u32,
            &raw mut needed,
        )
    };
    if ok == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the name ends with a zero; the descriptor is the one that was filled.
    let ok = unsafe { SetFileSecurityW(to.as_ptr(), DACL_SECURITY_INFORMATION, place) };
    if ok == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
