//! Hot patches that outlast the tool: made live in a process of Windows by one run of it, listed,
//! replaced and taken back by others.

use std::ops::Range;
use std::time::Duration;

use invivo_image::LiveAddr;

use super::Outcome;
use super::block::Block;
use super::found::{Found, find};
use super::lasting::Lasting;
use super::leaving::current;
use super::preflight::warnings;
use super::record::HotPatchRecord;
use crate::pe::Instance;
use crate::{ApplyError, Protection, Target, TargetError};

/// An image that is loaded in a process of Windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostImage {
    /// Its file.
    pub path: String,
    /// Where it is.
    pub range: Range<LiveAddr>,
}

/// What a process of Windows can do besides.
pub trait Host: Target {
    /// Its images.
    ///
    /// # Errors
    /// When it is gone or may not be looked at.
    fn images(&self) -> Result<Vec<HostImage>, TargetError>;

    /// The file of an image.
    ///
    /// # Errors
    /// When it cannot be read.
    fn file(&self, path: &str) -> Result<Vec<u8>, TargetError>;

    /// Lets the loader map an image and relocate it, and run nothing of it. Returns where it is.
    ///
    /// # Errors
    /// When it cannot be loaded.
    fn load(&mut self, path: &str) -> Result<LiveAddr, TargetError>;

    /// Lets the loader load an image as any library: what it imports is there, and its entry point,
    /// where it has one, was run. Returns where it is.
    ///
    /// # Errors
    /// When it cannot be loaded.
    fn load_whole(&mut self, path: &str) -> Result<LiveAddr, TargetError>;

    /// Takes back one [`load`](Self::load) or [`load_whole`](Self::load_whole).
    ///
    /// # Errors
    /// When the loader refuses.
    fn unload(&mut self, at: LiveAddr) -> Result<(), TargetError>;

    /// Makes memory that may be read and written; with `near` so near to an image that jumps of 32
    /// bits lead from all of the one to all of the other.
    ///
    /// # Errors
    /// When there is no room.
    fn reserve(
        &mut self,
        near: Option<&Range<LiveAddr>>,
        size: u64,
    ) -> Result<LiveAddr, TargetError>;

    /// Gives memory that [`reserve`](Self::reserve) made back.
    ///
    /// # Errors
    /// When the system refuses.
    fn release(&mut self, at: LiveAddr) -> Result<(), TargetError>;

    /// Changes what may be done with pages that [`reserve`](Self::reserve) made.
    ///
    /// # Errors
    /// When the system refuses.
    fn protect(
        &mut self,
        range: Range<LiveAddr>,
        protection: Protection,
    ) -> Result<(), TargetError>;

    /// Where memory begins that [`reserve`](Self::reserve) may have made.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    fn reserved(&self) -> Result<Vec<LiveAddr>, TargetError>;
}

/// A patched base, as far as one looks.
#[derive(Clone, Debug)]
pub struct Patched {
    pub(super) block: Block,
    /// What was done.
    pub record: HotPatchRecord,
    /// Whether it was done to what is loaded now.
    pub instance: Instance,
}

impl Patched {
    /// True if a tool died while it changed something, so that it is put in order before anything else is
    /// done.
    pub(super) fn is_in_the_middle(&self) -> bool {
        let record = &self.record;
        !record.words.is_empty() || record.patches.iter().any(|patch| !patch.led)
    }

    /// The record as it is for whoever asks what is patched: of a base that was unloaded, or loaded
    /// again, nothing is.
    #[must_use]
    pub fn now(self) -> HotPatchRecord {
        let mut record = self.record;
        if self.instance != Instance::Same {
            record.sequence = 0;
            record.entries.clear();
            record.words.clear();
        }
        record
    }
}

/// What was done with a base.
#[derive(Clone, Debug)]
pub struct Refitted {
    /// The base's file.
    pub base: String,
    /// The patch's sequence number; 0 where none is live any more.
    pub sequence: u32,
    /// What the engine did.
    pub outcome: Outcome,
    /// True if a tool that died had left something in the middle.
    pub settled: bool,
    /// Patches whose memory was given back, and why others' was not.
    pub unloaded: Vec<(String, Option<String>)>,
    /// What did not stand in the way, and should be known.
    pub warnings: Vec<String>,
}

/// All patched bases of a process.
///
/// # Errors
/// When the process is gone or may not be looked at.
pub fn list(host: &dyn Host) -> Result<Vec<Patched>, ApplyError> {
    let mut found = Vec::new();
    let images = host.images()?;
    for at in host.reserved()? {
        if let Some((block, record)) = Block::open(host, at)? {
            let instance = record.instance(host, &images)?;
            found.push(Patched {
                block,
                record,
                instance,
            });
        }
    }
    Ok(found)
}

/// Makes the final image in `path` live in a process that has its base loaded.
///
/// # Errors
/// When it breaks a rule, when no image or more than one is its base, or when a step fails; then
/// the process is as before.
pub fn apply(host: &mut dyn Host, path: &str, applied_by: &str) -> Result<Refitted, ApplyError> {
    let Found {
        patch,
        metadata,
        base,
        image,
    } = find(host, path)?;
    let (known, _) = current(host)?;
    let mut known = known.into_iter();
    let known = known.find(|one| one.record.at == base.range.start.0);
    let warnings = warnings(&image, &patch);
    let mut lasting = Lasting::open(host, &base, image, known, applied_by)?;
    let result = lasting.apply(path, patch, metadata.sequence);
    lasting.leave_if_unused();
    result.map(|done| Refitted { warnings, ..done })
}

/// Takes the patch of each base back; with `unload` the memory of patches that nobody needs, too.
///
/// # Errors
/// When something is not as it was left, or a step fails.
pub fn revert(
    host: &mut dyn Host,
    unload: bool,
    applied_by: &str,
) -> Result<Vec<Refitted>, ApplyError> {
    let (patched, gone) = current(host)?;
    let mut all = gone;
    for patched in patched {
        let mut lasting = Lasting::open_known(host, patched, applied_by)?;
        // Jumps that nothing leads to any more are taken away, too.
        let was_live = !lasting.state.entries.is_empty();
        let mut done = if was_live {
            lasting.revert()?
        } else {
            lasting.nothing()
        };
        if unload {
            done.unloaded = lasting.unload()?;
        }
        lasting.leave_if_unused();
        if was_live || done.settled || !done.unloaded.is_empty() {
            all.push(done);
        }
    }
    Ok(all)
}

/// Undoes what a tool that died left in the middle; tells which bases were settled.
///
/// # Errors
/// When something is not as it was left, or a step fails.
pub fn recover(host: &mut dyn Host, applied_by: &str) -> Result<Vec<Refitted>, ApplyError> {
    let (patched, gone) = current(host)?;
    let mut settled = gone;
    for patched in patched {
        let mut lasting = Lasting::open_known(host, patched, applied_by)?;
        if lasting.settled {
            // Where nothing is live, what leads to nothing goes, too.
            let left = lasting.state.sequence() == 0 && !lasting.state.entries.is_empty();
            settled.push(if left {
                lasting.revert()?
            } else {
                lasting.nothing()
            });
        }
        lasting.leave_if_unused();
    }
    Ok(settled)
}

impl Refitted {
    /// How long all threads stood.
    #[must_use]
    pub fn stopped(&self) -> Duration {
        self.outcome.stopped
    }
}
