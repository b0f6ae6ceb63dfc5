//! `squats PID`: somebody who made the memory first in which tools note which threads of a process stand,
//! with a thread in it that nobody stopped, and a handle that is the process's own. It ends with its input.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() {
    use std::io::Read;
    use std::ptr::null_mut;

    use windows_sys::Win32::Foundation::{GetLastError, INVALID_HANDLE_VALUE};
    use windows_sys::Win32::Security::Authorization::ConvertStringSecurityDescriptorToSecurityDescriptorW;
    use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
    use windows_sys::Win32::System::Memory::{
        CreateFileMappingW, FILE_MAP_WRITE, MapViewOfFile, PAGE_READWRITE,
    };

    let pid = std::env::args().nth(1).expect("squats PID");
    let wide = |text: &str| -> Vec<u16> { text.encode_utf16().chain([0]).collect() };
    let name = wide(&format!("Global\\invivo-standing-{pid}"));
    // A guest's, which everybody may use.
    let access = wide("O:BGD:(A;;GA;;;WD)");
    // SAFETY: the texts end with zeros, and the memory is as large as is said.
    unsafe {
        let mut descriptor = null_mut();
        let made = ConvertStringSecurityDescriptorToSecurityDescriptorW(
            access.as_ptr(),
            1,
            &raw mut descriptor,
            null_mut(),
        );
        assert!(made != 0, "a descriptor: {}", GetLastError());
        let attributes = SECURITY_ATTRIBUTES {
            nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
            lpSecurityDescriptor: descriptor,
            bInheritHandle: 0,
        };
        let memory = CreateFileMappingW(
            INVALID_HANDLE_VALUE,
            &raw const attributes,
            PAGE_READWRITE,
            0,
            0x1_0000,
            name.as_ptr(),
        );
        assert!(!memory.is_null(), "the memory: {}", GetLastError());
        let view = MapViewOfFile(memory, FILE_MAP_WRITE, 0, 0, 0x1_0000);
        let words = view.Value.cast::<u64>();
        assert!(!words.is_null(), "a view: {}", GetLastError());
        for (at, word) in [4, 1, 0x20 << 32].into_iter().enumerate() {
            words.add(at).write_volatile(word);
        }
    }
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
}
