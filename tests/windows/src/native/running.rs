//! A module that runs in this process while patches of older Windows are applied to it and removed, and
//! threads call it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use invivo_apply::ApplyError;
use invivo_apply::hotp1::PatchedModule;
use invivo_image::pe::PeImage;

use super::{Enlisted, Function, Here, Mapped};
use crate::Library;

/// A target that runs. What does not work ends the test that asks for it.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub here: Here,
    /// The module.
    pub base: Mapped,
    /// The module as the engine knows it.
    pub module: PatchedModule,
}

impl Running {
    /// Maps the library.
    #[must_use]
    pub fn new(base: &Library) -> Running {
        let here = Here::new().expect("a target");
        let base = Mapped::new(&here, base.image().expect("a Windows image")).expect("mapped");
        let module = PatchedModule::new(base.loaded.clone());
        Running { here, base, module }
    }

    /// Maps a patch module beside it.
    #[must_use]
    pub fn load(&self, image: PeImage) -> Mapped {
        Mapped::new(&self.here, image).expect("it can be mapped")
    }

    /// Applies; a moment at which no thread is inside may have to be waited for.
    pub fn apply(&mut self, patch: &Mapped) {
        let (here, module) = (&mut self.here, &mut self.module);
        until_quiet(|| module.apply(here, &patch.loaded));
    }

    /// Removes it again.
    pub fn remove(&mut self, patch: &Mapped) {
        let (here, module) = (&mut self.here, &mut self.module);
        until_quiet(|| module.remove(here, patch.loaded.at));
    }
}

/// Tries again while a thread is where it must not be.
pub fn until_quiet<T>(mut done: impl FnMut() -> Result<T, ApplyError>) -> T {
    loop {
        match done() {
            Err(ApplyError::Target(_)) => {}
            result => break result.expect("it is done"),
        }
    }
}

/// Ends the callers, also when a check fails while they run.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Threads that call.
const CALLERS: u32 = 4;

/// Calls `function` with 5 in some threads while `during` runs; each answer is wrong but 80 with one of
/// `known` added.
pub fn while_called(function: Function, known: &[i32], during: impl FnOnce()) {
    let (end, wrong) = (AtomicBool::new(false), AtomicU32::new(0));
    let calling = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let _end = End(&end);
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let enlisted = Enlisted::new().expect("it takes part");
                // One that the scheduler lets wait until all is over would call nothing.
                function(5);
                calling.fetch_add(1, Ordering::Relaxed);
                while !end.load(Ordering::Relaxed) {
                    if !known.contains(&(function(5) - 16 * 5)) {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
                drop(enlisted);
            });
        }
        let begin = Instant::now();
        while calling.load(Ordering::Relaxed) < CALLERS {
            assert!(begin.elapsed() < Duration::from_secs(60), "nobody calls");
            std::thread::yield_now();
        }
        during();
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "an answer of nobody");
}
