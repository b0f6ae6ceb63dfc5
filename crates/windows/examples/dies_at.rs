//! `dies_at STEP PID apply|revert|recover|unload PATCH`: what `invivo.exe` does with a patch, by a tool that
//! dies at the step of that number, as if it were killed: before it, or, where it writes, when half of the
//! bytes are written and the page is still open.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() {
    use std::sync::Arc;

    use invivo_apply::{hotp1, hpat};
    use invivo_image::pe::PeImage;
    use invivo_windows::{Access, Process};

    const WE: &str = "dies_at";
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [step, pid, verb, patch] = &words[..] else {
        panic!("dies_at STEP PID apply|revert|recover|unload PATCH");
    };
    let file = std::fs::read(patch).expect("the patch");
    let image = PeImage::parse(Arc::from(file)).expect("a Windows image");
    let older = invivo_format::hotp1::is_legacy(&image);
    let pid = pid.parse().expect("a number");
    let process = Process::open(pid, Access::Write { patience: 10_000 });
    let mut process = dying::Dying {
        process: process.expect("the process"),
        pid,
        left: step.parse().expect("a number"),
    };
    let process = &mut process;
    let unload = verb == "unload";
    match (&verb[..], older) {
        ("apply", true) => drop(hotp1::apply(process, patch, WE).expect("it is applied")),
        ("apply", false) => drop(hpat::apply(process, patch, WE).expect("it is applied")),
        ("recover", true) => drop(hotp1::recover(process, WE).expect("it is settled")),
        ("recover", false) => drop(hpat::recover(process, WE).expect("it is settled")),
        (_, true) => {
            drop(hotp1::revert(process, Some(patch), unload, WE).expect("it is removed"));
        }
        (_, false) => drop(hpat::revert(process, unload, WE).expect("it is taken back")),
    }
}

#[cfg(windows)]
mod dying {
    use std::ops::Range;
    use std::time::Duration;

    use invivo_apply::hpat::{Host, HostImage};
    use invivo_apply::{Module, Protection, Region, Stack, Stopped, Target, TargetError};
    use invivo_image::LiveAddr;
    use invivo_windows::Process;
    use windows_sys::Win32::System::Memory::{
        MEMORY_BASIC_INFORMATION, PAGE_EXECUTE, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE,
        VirtualProtectEx, VirtualQueryEx,
    };
    use windows_sys::Win32::System::Threading::{
        OpenProcess, PROCESS_QUERY_INFORMATION, PROCESS_VM_OPERATION,
    };

    type Done<T = ()> = Result<T, TargetError>;

    /// A process, and after how many steps its tool dies.
    pub(super) struct Dying {
        pub(super) process: Process,
        pub(super) pid: u32,
        pub(super) left: u32,
    }

    /// True at the last step.
    fn is_last(left: &mut u32) -> bool {
        let last = *left == 0;
        *left = left.wrapping_sub(1);
        last
    }

    /// Nothing is put in order.
    fn die() -> ! {
        std::process::exit(3)
    }

    /// The page that is written is open, as it is while a tool writes code.
    fn open(pid: u32, at: LiveAddr) {
        let page = (at.0 & !0xfff) as *const std::ffi::c_void;
        let mut info = MEMORY_BASIC_INFORMATION::default();
        let mut before = 0;
        // SAFETY: it concerns the memory of the process that is tested.
        unsafe {
            let process = OpenProcess(PROCESS_VM_OPERATION | PROCESS_QUERY_INFORMATION, 0, pid);
            VirtualQueryEx(process, page, &raw mut info, size_of_val(&info));
            if info.Protect & (PAGE_EXECUTE | PAGE_EXECUTE_READ) != 0 {
                let open = PAGE_EXECUTE_READWRITE;
                let opened = VirtualProtectEx(process, page, 0x1000, open, &raw mut before);
                assert!(opened != 0, "it can be opened");
            }
        }
    }

    impl Dying {
        fn step(&mut self) {
            if is_last(&mut self.left) {
                die();
            }
        }
    }

    impl Target for Dying {
        fn describe(&self) -> String {
            self.process.describe()
        }

        fn modules(&self) -> Done<Vec<Module>> {
            self.process.modules()
        }

        fn importers(&self, module: &Module, symbol: &str) -> Done<Vec<String>> {
            self.process.importers(module, symbol)
        }

        fn regions(&self) -> Done<Vec<Region>> {
            self.process.regions()
        }

        fn region_at(&self, at: LiveAddr) -> Done<Option<Region>> {
            self.process.region_at(at)
        }

        fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Done {
            self.process.read(at, bytes)
        }

        fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Done {
            if is_last(&mut self.left) {
                let half = &bytes[..bytes.len() / 2];
                self.process.write(at, half).expect("half of it is written");
                open(self.pid, at);
                die();
            }
            self.process.write(at, bytes)
        }

        fn store(&mut self, at: LiveAddr, bytes: &[u8]) -> Done {
            self.step();
            self.process.store(at, bytes)
        }

        fn original(&self, range: Range<LiveAddr>) -> Done<Option<Vec<u8>>> {
            self.process.original(range)
        }

        fn stop(
            &mut self,
            first: &[i32],
            during: &mut dyn FnMut(&mut dyn Stopped) -> Done,
        ) -> Done<Duration> {
            let (pid, left) = (self.pid, &mut self.left);
            self.process.stop(first, &mut |stopped| {
                if is_last(left) {
                    die();
                }
                during(&mut Standing { stopped, pid, left })
            })
        }

        fn glimpse(&self) -> Done<Vec<Stack>> {
            self.process.glimpse()
        }

        fn unwind_registrar(&self) -> Done<Option<LiveAddr>> {
            self.process.unwind_registrar()
        }
    }

    impl Host for Dying {
        fn images(&self) -> Done<Vec<HostImage>> {
            self.process.images()
        }

        fn file(&self, path: &str) -> Done<Vec<u8>> {
            self.process.file(path)
        }

        fn load(&mut self, path: &str) -> Done<LiveAddr> {
            self.step();
            self.process.load(path)
        }

        fn load_whole(&mut self, path: &str) -> Done<LiveAddr> {
            self.step();
            self.process.load_whole(path)
        }

        fn unload(&mut self, at: LiveAddr) -> Done {
            self.step();
            self.process.unload(at)
        }

        fn reserve(&mut self, near: Option<&Range<LiveAddr>>, size: u64) -> Done<LiveAddr> {
            self.step();
            self.process.reserve(near, size)
        }

        fn release(&mut self, at: LiveAddr) -> Done {
            self.step();
            self.process.release(at)
        }

        fn protect(&mut self, range: Range<LiveAddr>, protection: Protection) -> Done {
            self.step();
            self.process.protect(range, protection)
        }

        fn reserved(&self) -> Done<Vec<LiveAddr>> {
            self.process.reserved()
        }
    }

    /// The process while its threads stand.
    struct Standing<'s> {
        stopped: &'s mut dyn Stopped,
        pid: u32,
        left: &'s mut u32,
    }

    impl Stopped for Standing<'_> {
        fn stacks(&mut self) -> Done<Vec<Stack>> {
            self.stopped.stacks()
        }

        fn finds(&mut self, range: &Range<LiveAddr>) -> Done<Option<String>> {
            self.stopped.finds(range)
        }

        fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Done {
            if is_last(self.left) {
                let half = &bytes[..bytes.len() / 2];
                self.stopped.write(at, half).expect("half of it is written");
                open(self.pid, at);
                die();
            }
            self.stopped.write(at, bytes)
        }
    }
}
