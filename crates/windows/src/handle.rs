//! Handles that are closed in the end.

use windows_sys::Win32::Foundation::{CloseHandle, HANDLE, INVALID_HANDLE_VALUE};

/// A handle of this program.
#[derive(Debug)]
pub(crate) struct Handle(HANDLE);

impl Handle {
    /// Takes what a function of Windows returned; `None` where it returned none.
    pub(crate) fn new(handle: HANDLE) -> Option<Handle> {
        (!handle.is_null() && handle != INVALID_HANDLE_VALUE).then_some(Handle(handle))
    }

    /// For functions of Windows.
    pub(crate) fn get(&self) -> HANDLE {
        self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it was opened by this program, and nobody else closes it.
        unsafe { CloseHandle(self.0) };
    }
}
