//! The load configuration, as far as it concerns hot patching.

use super::headers::directory;
use super::{Directory, PeError, PeImage, PeMachine};
use crate::Rva;

/// Offsets in `IMAGE_LOAD_CONFIG_DIRECTORY{32,64}`.
struct Offsets {
    chpe: u32,
    guard_flags: u32,
    hot_patch: u32,
}

impl Offsets {
    fn of(machine: PeMachine) -> Offsets {
        match machine {
            PeMachine::I386 => Offsets {
                chpe: 0x7c,
                guard_flags: 0x58,
                hot_patch: 0x94,
            },
            PeMachine::Amd64 | PeMachine::Arm64 => Offsets {
                chpe: 0xc8,
                guard_flags: 0x90,
                hot_patch: 0xf0,
            },
        }
    }
}

/// The load configuration: `IMAGE_LOAD_CONFIG_DIRECTORY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadConfig {
    /// Where it is, and how long the data directory says it is.
    pub directory: Directory,
    /// How long it says it is itself.
    pub size: u32,
    /// `GuardFlags`; 0 where it is too short to hold them.
    pub guard_flags: u32,
    /// `CHPEMetadataPointer`; 0 where it is too short to hold it.
    pub chpe: u64,
    /// `HotPatchTableOffset`, the address of the hot-patch metadata; `None` where it is too short
    /// to hold it.
    pub hot_patch: Option<Rva>,
}

impl LoadConfig {
    /// The size from which on a load configuration can hold the address of hot-patch metadata.
    #[must_use]
    pub fn least_size(machine: PeMachine) -> u32 {
        Offsets::of(machine).hot_patch + 4
    }

    /// Where in an image of that machine the address of the hot-patch metadata stands.
    #[must_use]
    pub fn hot_patch_field(&self, machine: PeMachine) -> Rva {
        Rva(self.directory.at.0 + u64::from(Offsets::of(machine).hot_patch))
    }
}

/// Reads it. One that is not mapped whole is an error, since it tells the
/// loader how to protect the image; its sizes are judged by who needs them.
pub(super) fn read(image: &PeImage) -> Result<Option<LoadConfig>, PeError> {
    let Some(found) = image.directory(directory::LOAD_CONFIG) else {
        return Ok(None);
    };
    let outside = || super::error::outside("the load configuration", found.at);
    let size = image.word(found.at).ok_or_else(outside)?;
    let offsets = Offsets::of(image.machine);
    let field = |offset: u32| Rva(found.at.0 + u64::from(offset));
    let holds = |offset: u32, width: u32| size >= offset + width;
    let mut config = LoadConfig {
        directory: found,
        size,
        guard_flags: 0,
        chpe: 0,
        hot_patch: None,
    };
    if holds(offsets.guard_flags, 4) {
        config.guard_flags = image.word(field(offsets.guard_flags)).ok_or_else(outside)?;
    }
    if holds(offsets.chpe, image.machine.pointer_size()) {
        config.chpe = image.pointer(field(offsets.chpe)).ok_or_else(outside)?;
    }
    if holds(offsets.hot_patch, 4) {
        let at = image.word(field(offsets.hot_patch)).ok_or_else(outside)?;
        config.hot_patch = Some(Rva(at.into()));
    }
    Ok(Some(config))
}
