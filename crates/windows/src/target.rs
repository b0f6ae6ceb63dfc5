//! A process of Windows, as the engines see a target.

use std::ops::Range;
use std::time::{Duration, Instant};

use invivo_apply::hpat::{Host, HostImage};
use invivo_apply::{Module, Protection, Region, Stack, Stopped, Target, TargetError};
use invivo_image::LiveAddr;
use windows_sys::Win32::System::Memory::{PAGE_EXECUTE_READ, PAGE_READWRITE};

use crate::error::last;
use crate::memory::{Piece, free, make, near, piece, pieces, pieces_without, read, set, write};
use crate::process::Process;
use crate::snapshot::images;
use crate::stop::Stand;

fn of_linux<T>() -> Result<T, TargetError> {
    let text = "a process of Windows makes no calls of Linux";
    Err(TargetError::Unsupported(text.to_owned()))
}

fn region(piece: Piece) -> Region {
    Region {
        range: LiveAddr(piece.start)..LiveAddr(piece.end),
        executable: piece.is_executable(),
        writable: piece.is_writable(),
        file: None,
        offset: 0,
    }
}

impl Target for Process {
    fn describe(&self) -> String {
        format!("process {} ({})", self.pid, self.name())
    }

    fn modules(&self) -> Result<Vec<Module>, TargetError> {
        // No image of Windows has a build id.
        Ok(Vec::new())
    }

    fn importers(&self, _: &Module, _: &str) -> Result<Vec<String>, TargetError> {
        of_linux()
    }

    fn regions(&self) -> Result<Vec<Region>, TargetError> {
        let used = pieces(&self.handle).filter(|piece| !piece.free);
        Ok(used.map(region).collect())
    }

    fn region_at(&self, at: LiveAddr) -> Result<Option<Region>, TargetError> {
        let found = piece(&self.handle, at.0).filter(|piece| !piece.free);
        Ok(found.map(region))
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        read(&self.handle, at, bytes)
    }

    fn write(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        write(&self.handle, at, bytes)
    }

    fn store(&mut self, at: LiveAddr, bytes: &[u8]) -> Result<(), TargetError> {
        let (process, calls) = self.calls()?;
        calls.store(process, at, bytes)
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
        let mut stand = Stand::new(&self.handle, self.pid, self.left.take())?;
        self.let_go = self.let_go.map(|before| before + stand.left());
        let result = during(&mut stand);
        drop(stand);
        result.map(|()| begin.elapsed())
    }

    fn glimpse(&self) -> Result<Vec<Stack>, TargetError> {
        of_linux()
    }

    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        Ok(None)
    }
}

impl Host for Process {
    fn images(&self) -> Result<Vec<HostImage>, TargetError> {
        images(&self.handle, self.pid)
    }

    fn file(&self, path: &str) -> Result<Vec<u8>, TargetError> {
        std::fs::read(path).map_err(|source| TargetError::System {
            what: format!("read {path}"),
            source,
        })
    }

    fn load(&mut self, path: &str) -> Result<LiveAddr, TargetError> {
        let (process, calls) = self.calls()?;
        calls.load(process, path)
    }

    fn load_whole(&mut self, path: &str) -> Result<LiveAddr, TargetError> {
        let (process, calls) = self.calls()?;
        calls.load_whole(process, path)
    }

    fn unload(&mut self, at: LiveAddr) -> Result<(), TargetError> {
        let (process, calls) = self.calls()?;
        calls.unload(process, at)
    }

    fn reserve(
        &mut self,
        image: Option<&Range<LiveAddr>>,
        size: u64,
    ) -> Result<LiveAddr, TargetError> {
        self.reserved.replace(None);
        match image {
            Some(image) => near(&self.handle, image, size),
            None => make(&self.handle, None, size).ok_or_else(|| last("make memory")),
        }
    }

    fn release(&mut self, at: LiveAddr) -> Result<(), TargetError> {
        self.reserved.replace(None);
        free(&self.handle, at)
    }

    fn protect(
        &mut self,
        range: Range<LiveAddr>,
        protection: Protection,
    ) -> Result<(), TargetError> {
        let protection = match protection {
            Protection::ReadExecute => PAGE_EXECUTE_READ,
            Protection::ReadWrite => PAGE_READWRITE,
        };
        set(&self.handle, range.start.0..range.end.0, protection).map(|_| ())
    }

    fn reserved(&self) -> Result<Vec<LiveAddr>, TargetError> {
        if let Some(known) = self.reserved.borrow().as_ref().filter(|_| self.has_turn()) {
            return Ok(known.clone());
        }
        let mut images: Vec<_> = self.images()?.into_iter().map(|one| one.range).collect();
        images.sort_by_key(|range| range.start);
        let own = pieces_without(&self.handle, images).filter(|piece| {
            piece.private && piece.is_readable() && piece.start == piece.reserved_at
        });
        let found: Vec<LiveAddr> = own.map(|piece| LiveAddr(piece.start)).collect();
        self.reserved.replace(Some(found.clone()));
        Ok(found)
    }
}
