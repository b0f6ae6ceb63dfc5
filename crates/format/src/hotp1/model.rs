//! The patch as a model. All places are relative to the patch module unless they say otherwise.

use invivo_image::pe::PeMachine;

/// `HookOptions`.
pub mod hook_options {
    /// Bytes that are replaced.
    pub const LENGTH: u16 = 0x1f;
    /// Both images together must lie within 2 GiB.
    pub const NEAR: u16 = 0x8000;
}

/// `OptionFlags` of a validation.
pub mod validation_flags {
    /// Only the hook that names it looks at it.
    pub const HOOK_TARGET: u16 = 1;
}

/// `HOTPATCH_HEADER` with all that it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyPatch {
    /// `OrigHotpBaseAddress`: where the fixups take the patch to be.
    pub hotp_base: u64,
    /// `OrigTargetBaseAddress`: where they take the target to be.
    pub target_base: u64,
    /// The target's name, without a folder.
    pub target_name: String,
    /// How the exact build of the target is known.
    pub id: ModuleId,
    /// Words of the patch that depend on where both images are.
    pub fixups: Vec<FixupRegion>,
    /// Bytes that the target must have.
    pub validations: Vec<Validation>,
    /// Places of the target that are changed, in the order in which they are written.
    pub hooks: Vec<Hook>,
}

/// `ModuleIdMethod` and `TargetModuleIdValue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModuleId {
    /// 0 none, 1 and 2 a hash of the header, 3 the checksum, 16 the debug signature.
    pub method: u32,
    /// What the method gives, zeros behind it.
    pub value: [u8; 24],
}

impl ModuleId {
    /// `PeChecksum`: `CheckSum` of the target's header.
    #[must_use]
    pub fn checksum(checksum: u32) -> Self {
        let mut value = [0; 24];
        value[..4].copy_from_slice(&checksum.to_le_bytes());
        ModuleId { method: 3, value }
    }

    /// The method's own name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.method {
            0 => "None",
            1 => "PeHeaderHash1",
            2 => "PeHeaderHash2",
            3 => "PeChecksum",
            16 => "PeDebugSignature",
            _ => "unknown",
        }
    }
}

/// `HOTPATCH_FIXUP_REGION`: the fixups of one page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixupRegion {
    /// The page's number: its place is this times 4096.
    pub page: u32,
    /// Its fixups; an even number, with padding at the end.
    pub fixups: Vec<Fixup>,
}

/// A word of the patch that is changed when it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixup {
    /// Where in the page.
    pub offset: u16,
    /// How.
    pub kind: FixupKind,
}

/// How a word is changed. With `t` as how far the target, `h` as how far the patch is from
/// where it was taken to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixupKind {
    /// Not at all: it fills up.
    None,
    /// Four bytes, by `t`.
    Va32,
    /// Four bytes, by `t - h`.
    Pc32,
    /// Eight bytes, by `t`.
    Va64,
    /// Eight bytes, by `t - h`.
    Pc64,
}

impl FixupKind {
    pub(super) fn of(code: u16) -> Option<Self> {
        [
            FixupKind::None,
            FixupKind::Va32,
            FixupKind::Pc32,
            FixupKind::Va64,
            FixupKind::Pc64,
        ]
        .get(usize::from(code))
        .copied()
    }

    pub(super) fn code(self) -> u16 {
        match self {
            FixupKind::None => 0,
            FixupKind::Va32 => 1,
            FixupKind::Pc32 => 2,
            FixupKind::Va64 => 3,
            FixupKind::Pc64 => 4,
        }
    }

    /// Bytes that are changed.
    #[must_use]
    pub fn width(self) -> u32 {
        match self {
            FixupKind::None => 0,
            FixupKind::Va32 | FixupKind::Pc32 => 4,
            FixupKind::Va64 | FixupKind::Pc64 => 8,
        }
    }
}

/// `HOTPATCH_VALIDATION`: bytes that the target must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// The bytes, which the patch holds.
    pub bytes: Vec<u8>,
    /// Where in the target.
    pub target: u32,
    /// See [`validation_flags`].
    pub flags: u16,
}

/// `HOTPATCH_HOOK`: a place of the target that is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What is written there.
    pub kind: HookKind,
    /// See [`hook_options`].
    pub options: u16,
    /// Where in the target.
    pub at: u32,
    /// What it leads to in the patch; for [`HookKind::Jmp2B`] the distance, in the lowest byte.
    pub to: u32,
    /// The validation that belongs to it, by its number.
    pub validation: Option<usize>,
}

impl Hook {
    /// Bytes of the target that are replaced.
    #[must_use]
    pub fn length(&self) -> u32 {
        u32::from(self.options & hook_options::LENGTH)
    }
}

/// What a hook writes. The numbers are those of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// Nothing.
    None,
    /// The address of the place in the patch, 32 bits.
    Va32,
    /// `E9 rel32`, then `CC`.
    X86Jmp,
    /// 32 bits relative to the next instruction; no system implements it.
    PcRel32,
    /// `EB rel8`, then `CC`.
    Jmp2B,
    /// The address of the place in the patch, 64 bits.
    Va64,
    /// `FF 25 disp32` through a variable of the patch, then `CC`.
    Amd64Ind,
    /// A number of 16 bits.
    Amd64Cnt,
    /// One of IA64, or one that nobody knows: shown, never applied.
    Other(u16),
}

impl HookKind {
    const KNOWN: [(HookKind, u16, &'static str, u32); 8] = [
        (HookKind::None, 0, "None", 0),
        (HookKind::Va32, 1, "VA32", 4),
        (HookKind::X86Jmp, 2, "X86_JMP", 5),
        (HookKind::PcRel32, 3, "PCREL32", 4),
        (HookKind::Jmp2B, 4, "X86_JMP2B", 2),
        (HookKind::Va64, 16, "VA64", 8),
        (HookKind::Amd64Ind, 48, "AMD64_IND", 6),
        (HookKind::Amd64Cnt, 49, "AMD64_CNT", 2),
    ];

    /// The kind that has this number.
    #[must_use]
    pub fn of(code: u16) -> Self {
        let known = Self::KNOWN.iter().find(|known| known.1 == code);
        known.map_or(HookKind::Other(code), |known| known.0)
    }

    /// Its number.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            HookKind::Other(code) => code,
            known => Self::known(known).map_or(0, |known| known.1),
        }
    }

    /// Its name in the format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HookKind::Other(32) => "IA64_BRL",
            HookKind::Other(33) => "IA64_BR",
            other => Self::known(other).map_or("unknown", |known| known.2),
        }
    }

    /// Bytes that it writes at least.
    #[must_use]
    pub fn least(self) -> u32 {
        Self::known(self).map_or(0, |known| known.3)
    }

    /// True if it can be applied on `machine`.
    #[must_use]
    pub fn is_for(self, machine: PeMachine) -> bool {
        match self {
            HookKind::Va32 | HookKind::X86Jmp | HookKind::Jmp2B => machine != PeMachine::Arm64,
            HookKind::Va64 | HookKind::Amd64Ind | HookKind::Amd64Cnt => machine == PeMachine::Amd64,
            HookKind::None | HookKind::PcRel32 | HookKind::Other(_) => false,
        }
    }

    fn known(of: HookKind) -> Option<&'static (HookKind, u16, &'static str, u32)> {
        Self::KNOWN.iter().find(|known| known.0 == of)
    }
}
