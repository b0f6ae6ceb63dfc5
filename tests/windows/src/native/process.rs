//! This process as a target of the engines.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use invivo_apply::{Module, Region, Stack, Stopped, Target, TargetError};
use invivo_image::LiveAddr;

use super::View;
use super::stop::Stand;

/// `membarrier` with a command: what all threads of this process executed before is not what they
/// execute after it, if it was written before.
fn barrier(command: i32) -> bool {
    // SAFETY: it changes nothing that a thread could see but what it has prefetched.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

const REGISTER: i32 = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
const SYNC_CORE: i32 = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE;

/// This process, as far as images were mapped into it.
#[derive(Clone, Debug)]
pub struct Here {
    views: Arc<Mutex<Vec<Arc<View>>>>,
    /// True if code was written that a processor may have seen as it was before.
    written: bool,
}

impl Here {
    /// Nothing is mapped yet.
    ///
    /// # Errors
    /// When the kernel has no barrier for code that changes.
    pub fn new() -> Result<Here> {
        if !barrier(REGISTER) {
            bail!("the kernel has no barrier for code that changes");
        }
        Ok(Here {
            views: Arc::default(),
            written: false,
        })
    }

    pub(super) fn add(&self, view: Arc<View>) {
        self.views().push(view);
    }

    fn views(&self) -> MutexGuard<'_, Vec<Arc<View>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn any(&self, mut done: impl FnMut(&View) -> bool) -> bool {
        self.views().iter().any(|view| done(view))
    }
}

fn missing(action: &'static str, at: LiveAddr, size: usize) -> TargetError {
    let source = std::io::Error::other("no image is there");
    TargetError::Memory {
        action,
        at,
        size,
        source,
    }
}

fn not_here<T>() -> Result<T, TargetError> {
    let text = "an image of Windows makes no calls of Linux";
    Err(TargetError::Unsupported(text.to_owned()))
}

impl Target for Here {
    fn describe(&self) -> String {
        "this process".to_owned()
    }

    fn modules(&self) -> Result<Vec<Module>, TargetError> {
        Ok(Vec::new())
    }

    fn importers(&self, _: &Module, _: &str) -> Result<Vec<String>, TargetError> {
        Ok(Vec::new())
    }

    fn regions(&self) -> Result<Vec<Region>, TargetError> {
        let views = self.views();
        let mut regions: Vec<Region> = views.iter().flat_map(|view| view.regions()).collect();
        regions.sort_by_key(|region| region.range.start);
        Ok(regions)
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        if self.any(|view| view.read(at, bytes)) {
            Ok(())
        } else {
            Err(missing("read", at, bytes.len()))
        }
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        self.written = true;
        if self.any(|view| view.write(at, bytes)) {
            Ok(())
        } else {
            Err(missing("write", at, bytes.len()))
        }
    }

    fn store(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        if std::mem::take(&mut self.written) && !barrier(SYNC_CORE) {
            let text = "what was written may not be seen yet";
            return Err(TargetError::NotNow(text.to_owned()));
        }
        if self.any(|view| view.store(at, bytes)) {
            Ok(())
        } else {
            Err(missing("write", at, bytes.len()))
        }
    }

    fn original(&self, _: Range<LiveAddr>) -> Result<Option<Vec<u8>>, TargetError> {
        Ok(None)
    }

    fn stop(
        &mut self,
        _: &[i32],
        during: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        let begin = Instant::now();
        let stand = Stand::new();
        let mut held = Held(self, stand);
        let result = during(&mut held);
        // Whoever comes back from the handler sees what was written meanwhile.
        drop(held);
        result.map(|()| begin.elapsed())
    }

    fn glimpse(&self) -> Result<Vec<Stack>, TargetError> {
        not_here()
    }

    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        Ok(None)
    }
}

/// This process while its threads stand.
struct Held<'h>(&'h mut Here, Stand);

impl Stopped for Held<'_> {
    fn stacks(&mut self) -> Result<Vec<Stack>, TargetError> {
        Ok(self.1.stacks())
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        Target::write(self.0, at, bytes)
    }
}
