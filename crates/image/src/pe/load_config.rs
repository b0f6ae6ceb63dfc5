//! The load configuration, as far as it concerns hot patching.

use super::headers::directory;
use super::{Directory, PeError, PeImage, PeMachine};
use crate::Rva;

/// Offsets in `IMAGE_LOAD_CONFIG_DIRECTORY{32,64}`.
struct Offsets {
    chpe: u32,
    guard_table: u32,
    guard_flags: u32,
    hot_patch: u32,
}

impl Offsets {
    fn of(machine: PeMachine) -> Offsets {
        match machine {
            PeMachine::I386 => Offsets {
                chpe: 0x7c,
                guard_table: 0x50,
                guard_flags: 0x58,
                hot_patch: 0x94,
            },
            PeMachine::Amd64 | PeMachine::Arm64 => Offsets {
                chpe: 0xc8,
                guard_table: 0x80,
                guard_flags: 0x90,
                hot_patch: 0xf0,
            },
        }
    }
}

/// Bits of `GuardFlags`, named as Windows' headers name them.
pub mod guard_flags {
    /// `CF_INSTRUMENTED`: calls through pointers are checked.
    pub const INSTRUMENTED: u32 = 0x100;
    /// `CF_FUNCTION_TABLE_PRESENT`: there is a table of the functions that may be called so.
    pub const TABLE_PRESENT: u32 = 0x400;
    /// `CF_EXPORT_SUPPRESSION_INFO_PRESENT`: exports may be called only once they were asked for.
    pub const EXPORT_SUPPRESSION: u32 = 0x4000;
    /// `EH_CONTINUATION_TABLE_PRESENT`: exceptions may go on only at places of another table.
    pub const CONTINUATIONS: u32 = 0x40_0000;
    /// `XFG_ENABLED`: a digest of its type stands before each function.
    pub const TYPE_DIGESTS: u32 = 0x80_0000;
    /// What tells how large an entry of the table is, and nothing about the code.
    pub const TABLE_SIZE_MASK: u32 = 0xf000_0000;
}

/// A function that may be called through pointers: an entry of `GuardCFFunctionTable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuardTarget {
    /// Where it is.
    pub at: Rva,
    /// What stands beside it (`IMAGE_GUARD_FLAG_…`); 0 where nothing does.
    pub flags: u8,
}

impl GuardTarget {
    /// False for what is in the table and may not be called (`IMAGE_GUARD_FLAG_FID_SUPPRESSED`).
    #[must_use]
    pub fn may_be_called(self) -> bool {
        const SUPPRESSED: u8 = 1;
        self.flags & SUPPRESSED == 0
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
    /// `GuardCFFunctionTable`, as an address at the image's own base; 0 where there is none.
    pub guard_table: u64,
    /// `GuardCFFunctionCount`.
    pub guard_count: u64,
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
        guard_table: 0,
        guard_count: 0,
        chpe: 0,
        hot_patch: None,
    };
    let pointer = image.machine.pointer_size();
    if holds(offsets.guard_table, 2 * pointer) {
        let word = |at: u32| image.pointer(field(at)).ok_or_else(outside);
        config.guard_table = word(offsets.guard_table)?;
        config.guard_count = word(offsets.guard_table + pointer)?;
    }
    if holds(offsets.guard_flags, 4) {
        config.guard_flags = image.word(field(offsets.guard_flags)).ok_or_else(outside)?;
    }
    if holds(offsets.chpe, pointer) {
        config.chpe = image.pointer(field(offsets.chpe)).ok_or_else(outside)?;
    }
    if holds(offsets.hot_patch, 4) {
        let at = image.word(field(offsets.hot_patch)).ok_or_else(outside)?;
        config.hot_patch = Some(Rva(at.into()));
    }
    Ok(Some(config))
}

impl PeImage {
    /// `GuardFlags`; 0 where there is no load configuration that has them.
    #[must_use]
    pub fn guard_flags(&self) -> u32 {
        self.load_config.map_or(0, |config| config.guard_flags)
    }

    /// The functions that may be called through pointers, as the image lists them; empty where it has
    /// no such table.
    ///
    /// # Errors
    /// When the table is not in the image, or out of order.
    pub fn guard_targets(&self) -> Result<Vec<GuardTarget>, PeError> {
        let config = self.load_config.filter(|config| {
            config.guard_flags & guard_flags::TABLE_PRESENT != 0 && config.guard_count != 0
        });
        let Some(config) = config else {
            return Ok(Vec::new());
        };
        let more = u64::from(config.guard_flags >> 28);
        let at = Rva(config.guard_table.wrapping_sub(self.image_base));
        let outside = || super::error::outside("the table of call targets", at);
        let size = config.guard_count.checked_mul(4 + more);
        let bytes = size
            .and_then(|size| self.bytes(at, size))
            .ok_or_else(outside)?;
        let entries = bytes.chunks_exact(4 + more as usize);
        let targets: Vec<GuardTarget> = entries
            .map(|entry| GuardTarget {
                at: Rva(u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]).into()),
                flags: entry.get(4).copied().unwrap_or(0),
            })
            .collect();
        if !targets.is_sorted_by(|one, other| one.at < other.at) {
            let text = "the table of call targets is not in order".to_owned();
            return Err(PeError::Inconsistent(text));
        }
        Ok(targets)
    }
}
