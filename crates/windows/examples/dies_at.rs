//! `dies_at STEP PID apply|revert PATCH`: what `invivo.exe` does with a patch module of older Windows, by
//! a tool that dies at the step of that number, as if it were killed: before it, or, where it writes,
//! when half of the bytes are written.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() {
    use invivo_apply::hotp1::{apply, revert};
    use invivo_windows::{Access, Process};

    let words: Vec<String> = std::env::args().skip(1).collect();
    let [step, pid, verb, patch] = &words[..] else {
        panic!("dies_at STEP PID apply|revert PATCH");
    };
    let pid = pid.parse().expect("a number");
    let process = Process::open(pid, Access::Write { patience: 10_000 });
    let mut process = dying::Dying {
        process: process.expect("the process"),
        left: step.parse().expect("a number"),
    };
    if verb == "apply" {
        apply(&mut process, patch, "dies_at").expect("it is applied");
    } else {
        revert(&mut process, Some(patch), false, "dies_at").expect("it is removed");
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

    type Done<T = ()> = Result<T, TargetError>;

    /// A process, and after how many steps its tool dies.
    pub(super) struct Dying {
        pub(super) process: Process,
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
            let left = &mut self.left;
            self.process.stop(first, &mut |stopped| {
                if is_last(left) {
                    die();
                }
                during(&mut Standing { stopped, left })
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
                die();
            }
            self.stopped.write(at, bytes)
        }
    }
}
