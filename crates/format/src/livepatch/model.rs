//! The payload as a model. Numbers of sections and symbols count from 0 in the lists of the model.

use invivo_image::BuildId;

mod edit;

use super::function::{Function, StructureVersion};

/// A payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The structure of `.livepatch.funcs`.
    pub version: StructureVersion,
    /// What is replaced.
    pub functions: Vec<Function>,
    /// What is called, by moments and in the order of the calls.
    pub hooks: Vec<Hook>,
    /// Code and data that are loaded, Xen's special sections (`.altinstructions`,
    /// `.altinstr_replacement`, `.bug_frames.0` to `.3`, `.ex_table`, `.alt_call_sites`) among them.
    pub sections: Vec<Section>,
    /// What relocations lead to.
    pub symbols: Vec<Symbol>,
    /// The build id of the payload that must be applied last, or of Xen if none is.
    pub depends: BuildId,
    /// The build id of the hypervisor; Xen 4.14 and later demand it.
    pub xen_depends: Option<BuildId>,
    /// The texts of `.modinfo`, usually `key=value`; where there are none there is no section.
    pub modinfo: Vec<String>,
}

/// A function that Xen calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub moment: Moment,
    /// Which.
    pub code: Reference,
}

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// Before the first jump is written, while all processors stand.
    Load,
    /// After the last jump is taken back, while all processors stand.
    Unload,
    /// In the call that applies; may refuse.
    BeforeApply,
    /// Instead of what Xen does to apply.
    Apply,
    /// After all processors run again.
    AfterApply,
    /// In the call that reverts; may refuse.
    BeforeRevert,
    /// Instead of what Xen does to revert.
    Revert,
    /// After all processors run again.
    AfterRevert,
}

impl Moment {
    /// All of them, in the order in which Xen looks for them.
    pub const ALL: [Moment; 8] = [
        Moment::Load,
        Moment::Unload,
        Moment::BeforeApply,
        Moment::Apply,
        Moment::AfterApply,
        Moment::BeforeRevert,
        Moment::Revert,
        Moment::AfterRevert,
    ];

    /// The section that holds the pointers.
    #[must_use]
    pub fn section(self) -> &'static str {
        match self {
            Moment::Load => ".livepatch.hooks.load",
            Moment::Unload => ".livepatch.hooks.unload",
            Moment::BeforeApply => ".livepatch.hooks.preapply",
            Moment::Apply => ".livepatch.hooks.apply",
            Moment::AfterApply => ".livepatch.hooks.postapply",
            Moment::BeforeRevert => ".livepatch.hooks.prerevert",
            Moment::Revert => ".livepatch.hooks.revert",
            Moment::AfterRevert => ".livepatch.hooks.postrevert",
        }
    }

    /// True if there may be more than one hook.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Moment::Load | Moment::Unload)
    }
}

/// A place that a symbol leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The symbol's number.
    pub symbol: u32,
    /// What is added to its value.
    pub addend: i64,
}

/// A section that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// What its memory allows.
    pub access: Access,
    /// A power of two, at most 4096: Xen places a payload's parts at pages.
    pub align: u64,
    /// What it holds.
    pub contents: Contents,
    /// Words that depend on where something is.
    pub relocations: Vec<Relocation>,
}

/// What memory allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read and run.
    Code,
    /// Read.
    ReadOnly,
    /// Read and write. Xen applies a payload with such data only once.
    Data,
}

/// What a section holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many zeros, which are not in the file.
    Zeros(u64),
}

impl Contents {
    /// How many bytes it takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Zeros(size) => *size,
        }
    }
}

/// A word that depends on where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where in the section.
    pub offset: u64,
    /// How the word is made.
    pub kind: RelocationKind,
    /// What it leads to.
    pub to: Reference,
}

/// The relocations that Xen knows; code is compiled with `-fPIC` and hidden visibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelocationKind {
    /// `R_X86_64_64`: eight bytes, the address.
    Absolute64,
    /// `R_X86_64_PC32`: four bytes, the distance.
    Relative32,
    /// `R_X86_64_PLT32`: the same; compilers use it for calls.
    Call32,
}

impl RelocationKind {
    /// Bytes of the word.
    #[must_use]
    pub fn width(self) -> u64 {
        match self {
            RelocationKind::Absolute64 => 8,
            RelocationKind::Relative32 | RelocationKind::Call32 => 4,
        }
    }
}

/// Something that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// For one of Xen: the exact name of Xen's own table, such as `printk`, or `dir/file.c#name`
    /// for a static one. For one of the payload: the name by which later payloads and crash
    /// dumps know it, which no other payload and not Xen may have; or nothing, which is always right.
    pub name: String,
    /// Where it is.
    pub place: SymbolPlace,
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolPlace {
    /// In Xen, or in a payload that was uploaded before.
    Xen,
    /// In the payload.
    Section {
        /// The section's number.
        section: u32,
        /// Where in it.
        offset: u64,
        /// Bytes.
        size: u64,
    },
}
