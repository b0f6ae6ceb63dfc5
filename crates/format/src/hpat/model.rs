//! The metadata as a model. It holds whatever the format can express, also
//! what no kernel accepts, so that it can be shown.

/// `IMAGE_HOT_PATCH_INFO.Flags`.
pub mod info_flags {
    /// `PATCHORDERCRITICAL`; no behaviour is known.
    pub const ORDER_CRITICAL: u32 = 1;
    /// `HOTSWAP`; makes the kernel keep a bitmap of call targets for a driver.
    pub const HOT_SWAP: u32 = 2;
}

/// `IMAGE_HOT_PATCH_BASE.Flags`.
pub mod base_flags {
    /// `OBLIGATORY`; no behaviour is known.
    pub const OBLIGATORY: u32 = 1;
    /// `CAN_ROLL_BACK`; no behaviour is known.
    pub const CAN_ROLL_BACK: u32 = 2;
    /// For x86.
    pub const I386: u32 = 4;
    /// For ARM64.
    pub const ARM64: u32 = 8;
    /// For x86-64.
    pub const AMD64: u32 = 0x10;
    /// All flags that name a machine.
    pub const MACHINES: u32 = I386 | ARM64 | AMD64;
}

/// Records that one chunk can hold at most.
pub const LARGEST_CHUNK: usize = 0xfff;

/// `IMAGE_HOT_PATCH_INFO` with all that it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HotPatch {
    /// 1 to 4; decides which of the fields below a file has.
    pub version: u32,
    /// A patch replaces those of its base with lower numbers.
    pub sequence: u32,
    /// From version 2 on; use unknown.
    pub buffer_offset: u32,
    /// From version 3 on: how many further words each record has.
    pub extra_words: u32,
    /// From version 4 on: the lowest sequence number that it can be applied over.
    pub min_sequence: u32,
    /// From version 4 on: see [`info_flags`].
    pub flags: u32,
    /// The builds that it is for; every kernel that is known wants exactly one.
    pub bases: Vec<Base>,
}

/// `IMAGE_HOT_PATCH_BASE`: a build that the patch is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// A sequence number of its own, which no kernel looks at.
    pub sequence: u32,
    /// See [`base_flags`].
    pub flags: u32,
    /// `TimeDateStamp` of the build.
    pub time_stamp: u32,
    /// `CheckSum` of the build.
    pub checksum: u32,
    /// Digests of the build.
    pub integrity: Integrity,
    /// Use unknown.
    pub buffer_offset: u32,
    /// The patch table.
    pub chunks: Vec<Chunk>,
}

/// `CodeIntegrityInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Integrity {
    /// None is given.
    #[default]
    None,
    /// `IMAGE_HOT_PATCH_HASHES`; what is hashed is not public.
    Hashes {
        /// SHA-256.
        sha256: [u8; 32],
        /// SHA-1.
        sha1: [u8; 20],
    },
    /// Something of another size.
    Unknown {
        /// Where, from INFO on.
        offset: u32,
        /// Bytes.
        size: u32,
    },
}

/// What the records of a chunk are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChunkKind {
    /// Nothing.
    None,
    /// Calls of the source function go to the target.
    Function,
    /// The address of the target is stored at the source.
    Absolute,
    /// Defined, but no kernel that is known writes anything for it.
    Rel32,
    /// Word 0 is a place of the patch that may be called through pointers.
    CallTarget,
    /// The pointer that is found at the target is copied to the source.
    Indirect,
    /// Defined; nobody is known to use it.
    NoCallTarget,
    /// A number is added at the source if a dynamic value is in use.
    DynamicValue,
    /// Another code.
    Unknown(u32),
}

impl ChunkKind {
    /// Every kind that is known.
    pub const KNOWN: [ChunkKind; 8] = [
        ChunkKind::None,
        ChunkKind::Function,
        ChunkKind::Absolute,
        ChunkKind::Rel32,
        ChunkKind::CallTarget,
        ChunkKind::Indirect,
        ChunkKind::NoCallTarget,
        ChunkKind::DynamicValue,
    ];

    /// Its bits in a chunk's header (`IMAGE_HOT_PATCH_…`).
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            ChunkKind::None => 0,
            ChunkKind::Function => 0x0001_c000,
            ChunkKind::Absolute => 0x0002_c000,
            ChunkKind::Rel32 => 0x0003_c000,
            ChunkKind::CallTarget => 0x0004_4000,
            ChunkKind::Indirect => 0x0005_c000,
            ChunkKind::NoCallTarget => 0x0006_4000,
            ChunkKind::DynamicValue => 0x0007_8000,
            ChunkKind::Unknown(code) => code & bits::TYPE,
        }
    }

    /// The kind with these bits.
    #[must_use]
    pub fn from_code(code: u32) -> ChunkKind {
        let code = code & bits::TYPE;
        let known = ChunkKind::KNOWN
            .into_iter()
            .find(|kind| kind.code() == code);
        known.unwrap_or(ChunkKind::Unknown(code))
    }

    /// True if word 0 is an address in the source image.
    #[must_use]
    pub fn has_source(self) -> bool {
        self.code() & bits::SOURCE != 0
    }

    /// True if word 1 is an address in the target image.
    #[must_use]
    pub fn has_target(self) -> bool {
        self.code() & bits::TARGET != 0
    }

    /// The field's own name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ChunkKind::None => "NONE",
            ChunkKind::Function => "FUNCTION",
            ChunkKind::Absolute => "ABSOLUTE",
            ChunkKind::Rel32 => "REL32",
            ChunkKind::CallTarget => "CALL_TARGET",
            ChunkKind::Indirect => "INDIRECT",
            ChunkKind::NoCallTarget => "NO_CALL_TARGET",
            ChunkKind::DynamicValue => "DYNAMIC_VALUE",
            ChunkKind::Unknown(_) => "unknown",
        }
    }
}

/// The bits of a chunk's header (`IMAGE_HOT_PATCH_CHUNK_…`).
pub(super) mod bits {
    pub(crate) const INVERSE: u32 = 0x8000_0000;
    pub(crate) const OBLIGATORY: u32 = 0x4000_0000;
    pub(crate) const RESERVED: u32 = 0x3ff0_3000;
    pub(crate) const TYPE: u32 = 0x000f_c000;
    pub(crate) const SOURCE: u32 = 0x0000_8000;
    pub(crate) const TARGET: u32 = 0x0000_4000;
    pub(crate) const COUNT: u32 = 0x0000_0fff;
}

/// Records of one kind and one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// False: sources are in the base, targets in the patch. True: the reverse.
    pub inverse: bool,
    /// `CHUNK_OBLIGATORY`.
    pub obligatory: bool,
    /// Bits that must be zero.
    pub reserved: u32,
    /// What the records are for.
    pub kind: ChunkKind,
    /// The records, [`LARGEST_CHUNK`] at most.
    pub records: Vec<Record>,
}

impl Chunk {
    /// A chunk as writers make it.
    #[must_use]
    pub fn new(inverse: bool, kind: ChunkKind, records: Vec<Record>) -> Chunk {
        Chunk {
            inverse,
            obligatory: false,
            reserved: 0,
            kind,
            records,
        }
    }

    /// As many chunks as that many records take.
    #[must_use]
    pub fn split(inverse: bool, kind: ChunkKind, records: Vec<Record>) -> Vec<Chunk> {
        let mut rest = records.into_iter();
        std::iter::from_fn(|| {
            let records: Vec<Record> = rest.by_ref().take(LARGEST_CHUNK).collect();
            (!records.is_empty()).then(|| Chunk::new(inverse, kind, records))
        })
        .collect()
    }

    /// `forward` or `inverse`, and the kind's name.
    #[must_use]
    pub fn title(&self) -> String {
        let direction = if self.inverse { "inverse" } else { "forward" };
        format!("{direction} {}", self.kind.name())
    }
}

/// One entry of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Word 0: mostly an address (RVA) in the source image.
    pub source: u32,
    /// Word 1: mostly an address (RVA) in the target image.
    pub target: u32,
    /// Further words; of a FUNCTION the first holds the bytes that must be at the source.
    pub extra: Vec<u32>,
}

/// Bytes of `IMAGE_HOT_PATCH_INFO` in a version; `None` for versions that are not known.
pub(super) fn info_size(version: u32) -> Option<u32> {
    match version {
        1 => Some(20),
        2 => Some(24),
        3 => Some(28),
        4 => Some(36),
        _ => None,
    }
}

/// Bytes of `IMAGE_HOT_PATCH_BASE`.
pub(super) const BASE_SIZE: u32 = 32;
/// Bytes of `IMAGE_HOT_PATCH_HASHES`.
pub(super) const HASHES_SIZE: u32 = 52;
