//! `dies_exchanging STEP install IMAGE FILE`, `dies_exchanging STEP uninstall FILE`: what `invivo.exe` does with
//! a file, by a tool that dies before its call number STEP of a function of Windows that changes files or
//! opens one, as if it were killed.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() {
    use std::path::Path;

    use invivo_windows::{install, uninstall};

    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [step, words @ ..] = &words[..] else {
        panic!("dies_exchanging STEP install IMAGE FILE");
    };
    let calls = calls::Calls::watched();
    calls.die_at(step.parse().expect("a number"));
    let done = match words {
        ["install", image, file] => install(Path::new(file), Path::new(image)),
        ["uninstall", file] => uninstall(Path::new(file)),
        words => panic!("not known: {words:?}"),
    };
    calls.live();
    done.expect("the file is exchanged");
}

/// This program's own calls of Windows, through the slots that the loader filled.
#[cfg(windows)]
mod calls {
    use std::ffi::CStr;
    use std::ptr::null;

    use windows_sys::Win32::System::LibraryLoader::GetModuleHandleA;
    use windows_sys::Win32::System::Memory::{
        MEM_COMMIT, MEM_RESERVE, PAGE_EXECUTE_READWRITE, PAGE_READWRITE, VirtualAlloc,
        VirtualProtect,
    };
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess};

    /// What Rust's library and the exchange call to open files and to change them.
    const CONCERN_FILES: [&CStr; 8] = [
        c"CreateFileW",
        c"CreateHardLinkW",
        c"DeleteFileW",
        c"FlushFileBuffers",
        c"MoveFileExW",
        c"NtWriteFile",
        c"SetFileInformationByHandle",
        c"SetFileSecurityW",
    ];

    /// Bytes of the page that all is in.
    const PAGE: usize = 0x1000;

    /// Where in it is how many calls are left, and the address of `die`; the stubs follow.
    const LEFT: usize = 0;
    const DIE: usize = 8;
    const STUBS: usize = 32;

    /// Bytes of a stub.
    const STUB: usize = 32;

    pub(super) struct Calls {
        page: *mut u8,
    }

    extern "system" fn die() -> ! {
        // SAFETY: it ends this program at once; nothing is put in order.
        unsafe { TerminateProcess(GetCurrentProcess(), 3) };
        std::process::abort()
    }

    /// The distance from the end of an instruction to a place of the same page.
    fn distance(end: usize, place: usize) -> [u8; 4] {
        let (end, place) = (end as i32, place as i32);
        (place - end).to_le_bytes()
    }

    /// Code that counts a call down and goes on to `original`, or dies instead.
    fn stub(at: usize, original: u64) -> Vec<u8> {
        let mut code = vec![0xf0, 0xff, 0x0d]; // lock dec dword ptr [LEFT]
        code.extend(distance(at + 7, LEFT));
        code.extend([0x74, 6]); // jz behind the next
        code.extend([0xff, 0x25]); // jmp [original]
        code.extend(distance(at + 15, at + 24));
        code.extend([0xff, 0x25]); // jmp [DIE]
        code.extend(distance(at + 21, DIE));
        code.resize(24, 0xcc);
        code.extend(original.to_le_bytes());
        code
    }

    impl Calls {
        /// Leads these calls through stubs.
        pub(super) fn watched() -> Calls {
            // SAFETY: the page is this program's own, and large enough for a stub of each function.
            let page = unsafe {
                let kind = MEM_RESERVE | MEM_COMMIT;
                VirtualAlloc(null(), PAGE, kind, PAGE_EXECUTE_READWRITE).cast::<u8>()
            };
            assert!(!page.is_null(), "there is memory");
            let calls = Calls { page };
            let die: extern "system" fn() -> ! = die;
            // SAFETY: it is in the page.
            unsafe { page.add(DIE).cast::<u64>().write(die as usize as u64) };
            let slots = slots();
            assert!(slots.len() >= 5, "the functions are found");
            for (number, slot) in slots.into_iter().enumerate() {
                calls.lead(slot, STUBS + STUB * number);
            }
            calls
        }

        fn lead(&self, slot: *mut u64, at: usize) {
            assert!(at + STUB <= PAGE, "there is room");
            let mut before = 0;
            // SAFETY: the slot is one that the loader filled, and nobody else writes there; the stub is in
            // the page, and nobody runs it yet.
            unsafe {
                let code = stub(at, slot.read());
                self.page.add(at).copy_from(code.as_ptr(), code.len());
                let opened = VirtualProtect(slot.cast(), 8, PAGE_READWRITE, &raw mut before);
                assert!(opened != 0, "the slot can be written");
                slot.write(self.page.add(at) as u64);
            }
        }

        /// Dies before the call of this number, counted from now on.
        pub(super) fn die_at(&self, step: u32) {
            self.set(step + 1);
        }

        /// Dies at none.
        pub(super) fn live(&self) {
            self.set(0);
        }

        fn set(&self, left: u32) {
            // SAFETY: it is in the page, and no other thread makes such calls.
            unsafe { self.page.add(LEFT).cast::<u32>().write_volatile(left) };
        }
    }

    /// Where the loader put the addresses of these functions.
    fn slots() -> Vec<*mut u64> {
        let mut found = Vec::new();
        // SAFETY: the image is this program, whose headers and import tables the loader has read: they are
        // whole, and each list ends with a zero.
        unsafe {
            let image = GetModuleHandleA(null()).cast::<u8>();
            let word = |at: usize| image.add(at).cast::<u32>().read_unaligned() as usize;
            let optional = word(0x3c) + 0x18;
            // The second of the directories.
            let mut entry = word(optional + 0x70 + 8);
            while word(entry + 12) != 0 {
                let (names, slots) = (word(entry), word(entry + 16));
                for offset in (0..).step_by(8) {
                    let name = image.add(names + offset).cast::<u64>().read_unaligned();
                    if name == 0 {
                        break;
                    }
                    // The highest bit tells a number in the place of a name.
                    let is = |known: &CStr| {
                        let text = image.add(name as usize + 2);
                        let mut bytes = known.to_bytes_with_nul().iter().enumerate();
                        bytes.all(|(at, byte)| text.add(at).read() == *byte)
                    };
                    if name >> 63 == 0 && CONCERN_FILES.into_iter().any(is) {
                        found.push(image.add(slots + offset).cast());
                    }
                }
                entry += 20;
            }
        }
        found
    }
}
