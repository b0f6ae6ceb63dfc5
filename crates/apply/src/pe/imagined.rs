//! A process as it would be with an image that it has not loaded and with memory that was not made: what
//! a patch needs is asked of it, and nothing of the process changes.

use std::ops::Range;
use std::time::Duration;

use invivo_image::{LiveAddr, Rva};

use super::Loaded;
use super::near::{between, places_near};
use crate::hpat::Host;
use crate::{Module, Region, Stack, Stopped, Target, TargetError};

/// A process, and what is imagined in it.
pub(crate) struct Imagined<'h> {
    host: &'h dyn Host,
    images: Vec<Loaded>,
    tables: Vec<Range<LiveAddr>>,
}

/// Bytes of a page, and of two, of which the first one holds code.
const PAGE: u64 = 0x1000;
const PAIR: u64 = 2 * PAGE;

impl<'h> Imagined<'h> {
    pub(crate) fn new(host: &'h dyn Host) -> Imagined<'h> {
        Imagined {
            host,
            images: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// A place for `size` bytes near an image that is loaded, which is free.
    pub(crate) fn place(&self, near: &Range<LiveAddr>, size: u64) -> Result<LiveAddr, TargetError> {
        let regions = self.host.regions()?.into_iter();
        let mut used: Vec<_> = regions.map(|region| region.range).collect();
        used.extend(self.images.iter().map(|image| image.at..image.end()));
        used.extend(self.tables.iter().cloned());
        used.sort_by_key(|range| range.start);
        let used = used.into_iter().map(|range| range.start.0..range.end.0);
        let places = places_near(between(used), near, size);
        let place = places.first().map(|place| LiveAddr(*place));
        place.ok_or_else(|| TargetError::NotNow(format!("no memory is free near {}", near.start)))
    }

    /// Has an image loaded where it says.
    pub(crate) fn with_image(&mut self, image: &Loaded) {
        self.images.push(image.clone());
    }

    /// Has an empty address table.
    pub(crate) fn with_table(&mut self, range: Range<LiveAddr>) {
        self.tables.push(range);
    }

    /// What is imagined at an address: a page of it.
    fn imagined_at(&self, at: LiveAddr) -> Option<Region> {
        let mut images = self.images.iter();
        let image = images.find(|image| (image.at..image.end()).contains(&at));
        let mut tables = self.tables.iter();
        let table = tables.find(|table| table.contains(&at));
        let (start, executable, writable) = match (image, table) {
            (Some(image), _) => {
                // What is in no section is the headers'.
                let section = image.image.section_at(Rva(at.0 - image.at.0));
                let executable = section.is_some_and(|section| section.is_executable());
                let writable = section.is_some_and(|section| section.is_writable());
                (image.at, executable, writable)
            }
            (None, Some(table)) => {
                let executable = (at.0 - table.start.0) % PAIR < PAGE;
                (table.start, executable, !executable)
            }
            (None, None) => return None,
        };
        let page = LiveAddr(at.0 - (at.0 - start.0) % PAGE);
        Some(Region {
            range: page..LiveAddr(page.0.saturating_add(PAGE)),
            executable,
            writable,
            file: None,
            offset: 0,
        })
    }
}

/// What the loader makes of the file's bytes of an image; zeros where it has none.
fn mapped(loaded: &Loaded, start: Rva, bytes: &mut [u8]) {
    let image = &loaded.image;
    bytes.fill(0);
    let mut done = 0;
    while done < bytes.len() {
        let place = image.file_place(Rva(start.0 + done as u64));
        let held = place.and_then(|place| image.file().get(place));
        // Behind what the file has of a section is nothing, up to the next one.
        let held = held.filter(|held| !held.is_empty()).unwrap_or(&[0]);
        let size = held.len().min(bytes.len() - done);
        bytes[done..done + size].copy_from_slice(&held[..size]);
        done += size;
    }
    let end = Rva(start.0 + bytes.len() as u64);
    let moved = loaded.at.0.wrapping_sub(image.image_base);
    for relocation in image.relocations_over(start..end) {
        let Some(word) = image.array::<8>(relocation.at) else {
            continue;
        };
        let value = u64::from_le_bytes(word).wrapping_add(moved).to_le_bytes();
        for (number, byte) in (0..relocation.kind.width()).zip(value) {
            let place = (relocation.at.0 + number).checked_sub(start.0);
            let place = place.and_then(|place| usize::try_from(place).ok());
            if let Some(into) = place.and_then(|place| bytes.get_mut(place)) {
                *into = byte;
            }
        }
    }
}

fn died<T>() -> Result<T, TargetError> {
    let text = "a tool died at work in the process, and what it left is put in order first, which \
                changes something: invivo recover does that, and apply begins with it";
    Err(TargetError::NotNow(text.to_owned()))
}

impl Target for Imagined<'_> {
    fn describe(&self) -> String {
        self.host.describe()
    }

    fn modules(&self) -> Result<Vec<Module>, TargetError> {
        self.host.modules()
    }

    fn importers(&self, module: &Module, symbol: &str) -> Result<Vec<String>, TargetError> {
        self.host.importers(module, symbol)
    }

    fn regions(&self) -> Result<Vec<Region>, TargetError> {
        self.host.regions()
    }

    fn region_at(&self, at: LiveAddr) -> Result<Option<Region>, TargetError> {
        match self.imagined_at(at) {
            Some(found) => Ok(Some(found)),
            None => self.host.region_at(at),
        }
    }

    fn read(&self, at: LiveAddr, bytes: &mut [u8]) -> Result<(), TargetError> {
        let end = at.0.saturating_add(bytes.len() as u64);
        let within = |range: Range<LiveAddr>| range.start <= at && end <= range.end.0;
        let mut images = self.images.iter();
        if let Some(image) = images.find(|image| within(image.at..image.end())) {
            mapped(image, Rva(at.0 - image.at.0), bytes);
            return Ok(());
        }
        if self.tables.iter().any(|table| within(table.clone())) {
            bytes.fill(0);
            return Ok(());
        }
        self.host.read(at, bytes)
    }

    fn write(&mut self, _: LiveAddr, _: &[u8]) -> Result<(), TargetError> {
        died()
    }

    fn store(&mut self, _: LiveAddr, _: &[u8]) -> Result<(), TargetError> {
        died()
    }

    fn original(&self, range: Range<LiveAddr>) -> Result<Option<Vec<u8>>, TargetError> {
        self.host.original(range)
    }

    fn stop(
        &mut self,
        _: &[i32],
        _: &mut dyn FnMut(&mut dyn Stopped) -> Result<(), TargetError>,
    ) -> Result<Duration, TargetError> {
        died()
    }

    fn glimpse(&self) -> Result<Vec<Stack>, TargetError> {
        self.host.glimpse()
    }

    fn unwind_registrar(&self) -> Result<Option<LiveAddr>, TargetError> {
        Ok(None)
    }
}

/// What is to be put in order before anything else.
pub(crate) fn unsettled<T>() -> Result<T, crate::ApplyError> {
    died().map_err(Into::into)
}
