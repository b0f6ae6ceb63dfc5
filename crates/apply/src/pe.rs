//! A Windows image that is loaded in a target, whatever hot-patches it.

mod files;
mod imagined;
mod journal;
mod ledger;
mod marks;
mod near;
mod on_disk;
mod pages;
mod planned;
mod seen;

use std::fmt;
use std::sync::Arc;

use invivo_image::pe::{PeImage, PeMachine};
use invivo_image::{LiveAddr, Rva};

use crate::{ApplyError, Target, refused};
pub(crate) use files::{file_of, refuse_loaded};
pub(crate) use imagined::{Imagined, unsettled};
pub(crate) use journal::{Journal, Quiet, Word, when_nobody_is_in};
pub(crate) use ledger::Ledger;
pub(crate) use marks::Marks;
pub use near::places_near;
pub use on_disk::OnDisk;
pub(crate) use pages::{close_pages, open_in, open_pages};
pub use planned::{HookChange, Planned, PlannedHook};
pub(crate) use planned::{Kept, loaded_still, missing};
pub use seen::Instance;
pub(crate) use seen::{held_in, identity, loaded_at};

/// A Windows image in a target: the file that it was loaded from, and where it is.
#[derive(Clone)]
pub struct Loaded {
    /// The file.
    pub image: Arc<PeImage>,
    /// Where its first byte is.
    pub at: LiveAddr,
    /// Bytes that are kept for its address table; 0 where there is none.
    pub reserve: u64,
    /// Where they are; `None` where they are right behind it, as Windows keeps them.
    pub table: Option<LiveAddr>,
}

impl fmt::Debug for Loaded {
    /// Without the file's bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.image, self.at)
    }
}

impl Loaded {
    /// The address of a place of the image.
    ///
    /// # Errors
    /// When no memory can be there.
    pub(crate) fn address(&self, at: u32) -> Result<LiveAddr, ApplyError> {
        let address = self.at.checked_add(at.into());
        address.map_or_else(
            || refused(format!("{at:#x} behind {} is no address", self.at)),
            Ok,
        )
    }

    /// The first byte behind its pages.
    pub(crate) fn end(&self) -> LiveAddr {
        LiveAddr(self.at.0.saturating_add(self.pages()))
    }

    /// Bytes that it takes, in whole pages.
    pub(crate) fn pages(&self) -> u64 {
        u64::from(self.image.size).next_multiple_of(0x1000)
    }

    /// Refuses what is not the image that it is said to be: the headers in memory tell its
    /// identity, and all of it must be mapped.
    pub(crate) fn check_identity(&self, target: &dyn Target) -> Result<(), ApplyError> {
        if self.image.machine == PeMachine::Arm64 {
            return refused("patches for ARM64 are read and checked, and not applied");
        }
        let places = self.image.header_places();
        let stamp = places.time_stamp;
        for (place, value, what) in [
            (stamp, self.image.time_stamp, "time stamp"),
            (places.checksum, self.image.checksum, "checksum"),
        ] {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            let found = u32::from_le_bytes(bytes(target, self.address(place)?)?);
            if found != value {
                return refused(format!(
                    "the image at {} has the {what} {found:#x}, its file {value:#x}",
                    self.at
                ));
            }
        }
        Ok(())
    }

    /// Bytes of the file at `at`, as the loader maps them before it relocates anything.
    pub(crate) fn original<const N: usize>(&self, at: u32) -> Result<[u8; N], ApplyError> {
        let found = self.image.array(Rva(at.into()));
        found.map_or_else(|| refused(format!("{at:#x} is not in the image")), Ok)
    }
}

/// `N` bytes of the target.
pub(crate) fn bytes<const N: usize>(
    target: &dyn Target,
    at: LiveAddr,
) -> Result<[u8; N], ApplyError> {
    let mut found = [0; N];
    target.read(at, &mut found)?;
    Ok(found)
}

/// The file of an image.
pub(crate) fn parse(path: &str, bytes: Vec<u8>) -> Result<PeImage, ApplyError> {
    PeImage::parse(Arc::from(bytes)).or_else(|error| refused(format!("{path}: {error}")))
}
