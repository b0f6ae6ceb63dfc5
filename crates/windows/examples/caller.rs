//! A program that is patched: eight threads call a library, a thousand times between two short
//! pauses that leave the processor to others, and look at each answer.
//!
//! `caller LIBRARY` prints `ready PID`. A line `tell` on standard input has it print how many calls
//! were made of each function, how many answers came from the base, the first and the second
//! patch, and how many were wrong; `end` the same as its last words, and what the library counted.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() {
    windows::main();
}

#[cfg(windows)]
mod windows {
    use std::ffi::CString;
    use std::io::BufRead;
    use std::mem::transmute;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    use windows_sys::Win32::System::LibraryLoader::{GetProcAddress, LoadLibraryA};

    type Function = extern "C" fn(i32) -> i32;

    static END: AtomicBool = AtomicBool::new(false);
    static CALLS: AtomicU64 = AtomicU64::new(0);
    static WRONG: AtomicU64 = AtomicU64::new(0);
    static ADDED: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

    fn call(count: Function, weigh: Function) {
        let mut n = 0;
        while !END.load(Relaxed) {
            n = (n + 1) % 1000;
            for (function, most) in [(count, 2), (weigh, 1)] {
                match function(n) - 16 * n {
                    added @ 0..=2 if added <= most => {
                        ADDED[added as usize].fetch_add(1, Relaxed);
                    }
                    _ => {
                        WRONG.fetch_add(1, Relaxed);
                    }
                }
            }
            CALLS.fetch_add(1, Relaxed);
            if n == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    fn tell() {
        let added = ADDED.each_ref().map(|one| one.load(Relaxed));
        let (calls, wrong) = (CALLS.load(Relaxed), WRONG.load(Relaxed));
        println!("calls {calls} added {added:?} wrong {wrong}");
    }

    pub(super) fn main() {
        let path = std::env::args().nth(1).expect("a library");
        let path = CString::new(path).expect("a name");
        // SAFETY: the name ends with a zero; the library runs nothing but its own start.
        let library = unsafe { LoadLibraryA(path.as_ptr().cast()) };
        assert!(!library.is_null(), "the library is there");
        let function = |name: &str| -> Function {
            let name = CString::new(name).expect("a name");
            // SAFETY: the library's functions take and return an `int`.
            unsafe {
                let found = GetProcAddress(library, name.as_ptr().cast()).expect("a function");
                transmute(found)
            }
        };
        let (count, weigh) = (function("count"), function("weigh"));
        let threads: Vec<_> = (0..8)
            .map(|_| std::thread::spawn(move || call(count, weigh)))
            .collect();
        println!("ready {}", std::process::id());
        for line in std::io::stdin().lock().lines() {
            match line.expect("a line").trim() {
                "tell" => tell(),
                _ => break,
            }
        }
        END.store(true, Relaxed);
        for thread in threads {
            thread.join().expect("it ends");
        }
        tell();
        let counted = ["get_counted", "get_weighed", "get_helped"]
            .map(|name| function(name)(0).cast_unsigned());
        println!("counted {counted:?}");
    }
}
