//! `struct livepatch_func`: what is replaced by what.

use super::model::Reference;

/// Bytes of `jmp rel32`.
pub(super) const JUMP: u32 = 5;
/// `ENDBR64`.
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// What Xen writes over an `ENDBR64` that no pointer needs: `nopw (%rax)`.
const POISON: [u8; 4] = [0x66, 0x0f, 0x1f, 0x00];
/// The most bytes that Xen remembers of a function, so the longest NOP.
pub const MOST_NOPS: u32 = 31;
/// The most bytes of an expectation.
pub const MOST_EXPECTED: usize = 31;

/// The layout of `struct livepatch_func`. Xen knows one, and takes no payload with the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StructureVersion {
    /// 64 bytes: Xen 4.7 to 4.13.
    V1,
    /// 104 bytes, with an expectation: Xen 4.14 and later.
    #[default]
    V2,
}

impl StructureVersion {
    /// The number in the structure.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            StructureVersion::V1 => 1,
            StructureVersion::V2 => 2,
        }
    }

    /// Bytes of the structure.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            StructureVersion::V1 => 64,
            StructureVersion::V2 => 104,
        }
    }
}

/// A function of Xen that is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, for messages; and what it is looked up by with [`Old::Name`].
    pub name: String,
    /// What is run instead.
    pub new: New,
    /// Where it is.
    pub old: Old,
    /// Bytes of the old function, from its symbol.
    pub old_size: u32,
    /// What it must begin with when the payload is applied.
    pub expectation: Option<Expectation>,
}

/// What is run instead of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum New {
    /// Code of the payload.
    Code {
        /// Where it begins.
        code: Reference,
        /// Bytes of it.
        size: u32,
    },
    /// Nothing: the old function's first bytes become NOPs, and what follows them runs.
    Nop {
        /// How many bytes; with an `ENDBR64` in front its four are counted and not changed.
        size: u32,
    },
}

/// How the place of a function is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Xen looks the name up, in its own table and then in uploaded payloads.
    Name,
    /// The address itself.
    Address(u64),
    /// A symbol, through a relocation.
    Symbol(Reference),
}

/// Bytes that a function must begin with. Xen compares them without a mask: what may differ
/// in memory cannot be looked at, so an expectation ends before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation(Vec<u8>);

impl Expectation {
    /// The bytes as they are; `None` if there are none or more than 31.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Expectation> {
        (1..=MOST_EXPECTED)
            .contains(&bytes.len())
            .then_some(Expectation(bytes))
    }

    /// The longest beginning of `function` that is the same in memory: up to the first byte
    /// of `changed` — offsets that Xen changes when it boots, such as the places of
    /// `.altinstructions`. `None` if nothing is left, as where an `ENDBR64` is in front, which
    /// Xen overwrites on a machine with CET where no pointer needs it.
    #[must_use]
    pub fn beginning(function: &[u8], changed: &[std::ops::Range<u64>]) -> Option<Expectation> {
        if has_endbr(function) {
            return None;
        }
        let first = changed.iter().filter(|range| !range.is_empty());
        let first = first.map(|range| range.start).min();
        let first = first.map_or(MOST_EXPECTED, |at| {
            usize::try_from(at).unwrap_or(MOST_EXPECTED)
        });
        let length = function.len().min(first).min(MOST_EXPECTED);
        Expectation::new(function[..length].to_vec())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// True if the function begins with `ENDBR64`, or with what Xen makes of one.
#[must_use]
pub fn has_endbr(function: &[u8]) -> bool {
    function.starts_with(&ENDBR) || function.starts_with(&POISON)
}

/// Bytes that Xen leaves alone at the beginning of the function.
pub(super) fn kept(function: &[u8]) -> u32 {
    if has_endbr(function) { 4 } else { 0 }
}

/// How long a function must be at least so that Xen can write a jump into it: 5 bytes, or 9
/// behind an `ENDBR64`.
#[must_use]
pub fn shortest_patchable(function: &[u8]) -> u32 {
    JUMP + kept(function)
}
