//! The process of 32 bits as a target of the engines.

use std::ops::Range;
use std::time::{Duration, Instant};

use invivo_apply::{Module, Region, Stack, Stopped, Target, TargetError};
use invivo_image::LiveAddr;

use super::Narrow;
use crate::native::View;

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

impl Target for Narrow {
    fn describe(&self) -> String {
        format!("process {} of 32 bits", self.pid())
    }

    fn modules(&self) -> Result<Vec<Module>, TargetError> {
        Ok(Vec::new())
    }

    fn importers(&self, _: &Module, _: &str) -> Result<Vec<String>, TargetError> {
        Ok(Vec::new())
    }

    fn regions(&self) -> Result<Vec<Region>, TargetError> {
        let mut regions: Vec<Region> = self.views.iter().flat_map(View::regions).collect();
        regions.sort_by_key(|region| region.range.start);
        Ok(regions)
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        match self.any(|view| view.read(at, bytes)) {
            true => Ok(()),
            false => Err(missing("read", at, bytes.len())),
        }
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        match self.any(|view| view.write(at, bytes)) {
            true => Ok(()),
            false => Err(missing("write", at, bytes.len())),
        }
    }

    fn store(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        match self.any(|view| view.store(at, bytes)) {
            true => Ok(()),
            false => Err(missing("write", at, bytes.len())),
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
        self.signal(libc::SIGSTOP);
        let result = self
            .threads()
            .and_then(|stacks| during(&mut Held(self, stacks)));
        self.signal(libc::SIGCONT);
        result.map(|()| begin.elapsed())
    }

    fn glimpse(&self) -> Result<Vec<Stack>, TargetError> {
        not_here()
    }

    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        Ok(None)
    }
}

/// The process while its threads stand.
struct Held<'h>(&'h mut Narrow, Vec<Stack>);

impl Stopped for Held<'_> {
    fn stacks(&mut self) -> Result<Vec<Stack>, TargetError> {
        Ok(self.1.clone())
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        Target::write(self.0, at, bytes)
    }
}
