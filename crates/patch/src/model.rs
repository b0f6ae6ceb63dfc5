//! The patch model.

use std::fmt;

use invivo_compare::Judgement;
use invivo_image::{LinkAddr, Machine, Rva};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Entry;

/// Bytes that are written as hexadecimal text.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex(pub Vec<u8>);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hex({self})")
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
        let digits = digits.ok_or_else(|| serde::de::Error::custom("not hexadecimal text"))?;
        Ok(Hex(digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()))
    }
}

/// A SHA-256.
pub type Digest = Hex;

/// Who a patch is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A name that people use, unique among the patches of a target.
    pub name: String,
    /// What it fixes, such as `CVE-2024-31228`.
    pub labels: Vec<String>,
    /// The program and version that made it.
    pub creator: String,
}

/// The image that a patch belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetImage {
    /// The name of the file it was built for; for people, not checked.
    pub file_name: String,
    /// `NT_GNU_BUILD_ID`, checked.
    pub build_id: Hex,
    /// The instruction set, checked.
    pub machine: Machine,
    /// The link address of [`Rva`] 0: not 0 in images with fixed addresses.
    pub base: LinkAddr,
}

/// The place of a patch among the patches of its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Grows from patch to patch; each one completely replaces its predecessor.
    pub sequence: u32,
    /// True if old and new callers must not mix: it goes live, and back, only at a moment
    /// when no thread is inside what is replaced.
    #[serde(default)]
    pub quiescent: bool,
    /// Functions, mangled, of which a frame that is still inside old code must not meet the new:
    /// what compilers agree on between them, and no prototype tells, is another. The patch is
    /// `quiescent` for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apart: Vec<String>,
    /// Symbols that no other image of the process may import: their functions are called in
    /// another way now.
    #[serde(default)]
    pub unshared: Vec<String>,
}

/// Which way a redirect leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Base → patch: calls of the base's function run the patch's.
    Forward,
    /// Patch → base: a function that did not change is called in the base.
    Inverse,
}

/// A function that is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// Which way; the Linux carrier has forward ones only, its inverse ones are bindings.
    pub direction: Direction,
    /// Its name, mangled.
    pub function: String,
    /// Where it starts in the base.
    pub at: Rva,
    /// Its size in the base, in bytes.
    pub size: u64,
    /// True if the entry gets a hook. A function that only replaced functions call, and
    /// that is called in another way now, gets none: their new versions call the new one
    /// directly, and frames that are still inside old versions go on with the old one,
    /// whose arguments they know.
    pub hooked: bool,
    /// The room that its entry leaves to a hook.
    #[serde(flatten)]
    pub entry: Entry,
    /// The symbol of the new code, an index into [`Contents::symbols`].
    pub replacement: u32,
    /// Cold parts of the function in the base, start and size: code of it too.
    pub cold: Vec<(Rva, u64)>,
}

/// When a callout is called.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// Before the hooks are written; it may refuse.
    BeforeApply,
    /// When the patch is live.
    AfterApply,
    /// Before the hooks are taken back; it may refuse.
    BeforeRevert,
    /// When the patch is not live any more, or did not go live although the callout before
    /// the apply agreed.
    AfterRevert,
}

impl Moment {
    /// All of them, in order.
    pub const ALL: [Moment; 4] = [
        Moment::BeforeApply,
        Moment::AfterApply,
        Moment::BeforeRevert,
        Moment::AfterRevert,
    ];
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::BeforeApply => "before-apply",
            Moment::AfterApply => "after-apply",
            Moment::BeforeRevert => "before-revert",
            Moment::AfterRevert => "after-revert",
        })
    }
}

/// A function of the patch that is called in the target: without arguments, and with an
/// `int` as its answer, where 0 agrees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callout {
    /// When.
    pub moment: Moment,
    /// Its name, mangled.
    pub function: String,
    /// The symbol of its code, an index into [`Contents::symbols`].
    pub symbol: u32,
}

/// A place of the base that the patch refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bound {
    /// What it is called.
    pub name: String,
    /// Where it is in the base.
    pub at: Rva,
}

/// Bytes that must be in the target before the first write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Where they start.
    pub at: Rva,
    /// How many they are.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: Digest,
}

impl Check {
    /// True if these are the bytes.
    #[must_use]
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        Sha256::digest(bytes)[..] == self.sha256.0[..]
    }
}

/// What a section of the patch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SectionKind {
    /// Machine code.
    Text,
    /// Constants.
    ReadOnly,
    /// `.eh_frame` records.
    Unwind,
    /// Variables that the base does not have.
    Data,
}

/// A section of the patch: each function and object has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, such as `.text.stringmatch`.
    pub name: String,
    /// What it holds.
    pub kind: SectionKind,
    /// In bytes, a power of two.
    pub align: u64,
    /// Its contents; variables that start as zero are written out too.
    pub bytes: Vec<u8>,
    /// What is filled in when the places are known.
    pub relocations: Vec<Relocation>,
}

/// How a value is written at a place. The names are those of the ELF psABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocationKind {
    /// `R_X86_64_PC32`: four bytes, S + A − P.
    Relative32,
    /// `R_X86_64_64`: eight bytes, S + A.
    Absolute64,
    /// `R_X86_64_32`: four bytes, S + A, zero-extended.
    Absolute32,
    /// `R_X86_64_32S`: four bytes, S + A, sign-extended.
    Absolute32Signed,
}

impl RelocationKind {
    /// Bytes that are written.
    #[must_use]
    pub fn width(self) -> usize {
        if self == RelocationKind::Absolute64 {
            8
        } else {
            4
        }
    }

    /// What is written for the address `value` at the place `at`; `None` if it does not fit.
    #[must_use]
    pub fn bytes(self, value: u64, at: u64) -> Option<Vec<u8>> {
        let value = i64::try_from(value).ok()?;
        Some(match self {
            RelocationKind::Absolute64 => value.to_le_bytes().to_vec(),
            RelocationKind::Relative32 => {
                let distance = value.checked_sub(i64::try_from(at).ok()?)?;
                i32::try_from(distance).ok()?.to_le_bytes().to_vec()
            }
            RelocationKind::Absolute32 => u32::try_from(value).ok()?.to_le_bytes().to_vec(),
            RelocationKind::Absolute32Signed => i32::try_from(value).ok()?.to_le_bytes().to_vec(),
        })
    }
}

/// A value to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Offset in its section.
    pub offset: u64,
    /// How it is written.
    pub kind: RelocationKind,
    /// The symbol, an index into [`Contents::symbols`].
    pub symbol: u32,
    /// Added to the symbol's value.
    pub addend: i64,
}

/// Where a symbol of the patch is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SymbolPlace {
    /// In a section of the patch.
    Patch {
        /// An index into [`Contents::sections`].
        section: u32,
        /// Offset in it.
        offset: u64,
        /// In bytes.
        size: u64,
    },
    /// In the base: a binding.
    Base(Rva),
    /// In another image of the process: looked up when the patch is applied, as the loader
    /// would have done.
    Import(Option<ImportVersion>),
}

/// The version at which something is imported.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImportVersion {
    /// Such as `GLIBC_2.2.5`.
    pub version: String,
    /// The library that has it, such as `libc.so.6`.
    pub library: String,
}

impl SymbolPlace {
    /// Symbols stand in this order: the patch's own, bindings, imports.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            SymbolPlace::Patch { .. } => 0,
            SymbolPlace::Base(_) => 1,
            SymbolPlace::Import(_) => 2,
        }
    }
}

/// A name of the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Mangled; empty for unnamed constants.
    pub name: String,
    /// Where it is.
    pub place: SymbolPlace,
}

/// What the patch brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its sections.
    pub sections: Vec<Section>,
    /// Its symbols.
    pub symbols: Vec<Symbol>,
}

/// A patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Who it is.
    pub identity: Identity,
    /// Which image it belongs to.
    pub target: TargetImage,
    /// Its place among others.
    pub order: Order,
    /// Findings against it that a person has judged to do no harm.
    pub judgements: Vec<Judgement>,
    /// Functions that it replaces.
    pub redirects: Vec<Redirect>,
    /// What must be in the target.
    pub checks: Vec<Check>,
    /// Functions that are called before and after, at most one for each moment.
    pub callouts: Vec<Callout>,
    /// What it brings; symbols with a place in the base are its bindings.
    pub contents: Contents,
}

impl Patch {
    /// True if both make the same of the same program, whatever they are called and in which order they
    /// come: the same new code for the same functions.
    #[must_use]
    pub fn is_same_fix(&self, other: &Patch) -> bool {
        let of = |patch: &Patch| patch.target.build_id.clone();
        of(self) == of(other)
            && self.redirects == other.redirects
            && self.contents == other.contents
    }

    /// Places of the base that it refers to.
    pub fn bindings(&self) -> impl Iterator<Item = Bound> {
        self.contents
            .symbols
            .iter()
            .filter_map(|symbol| match symbol.place {
                SymbolPlace::Base(at) => Some(Bound {
                    name: symbol.name.clone(),
                    at,
                }),
                SymbolPlace::Patch { .. } | SymbolPlace::Import(_) => None,
            })
    }

    /// What it needs of other images of the process, by name and version.
    pub fn imports(&self) -> impl Iterator<Item = (&str, Option<&ImportVersion>)> {
        self.contents
            .symbols
            .iter()
            .filter_map(|symbol| match &symbol.place {
                SymbolPlace::Import(version) => Some((symbol.name.as_str(), version.as_ref())),
                SymbolPlace::Patch { .. } | SymbolPlace::Base(_) => None,
            })
    }
}
