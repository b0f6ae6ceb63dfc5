//! The rules of the format. Each has an id; whether a kernel was seen to enforce it or
//! only we do is part of the rule.

mod about;

use std::fmt;
use std::str::FromStr;

pub use about::About;

/// How a finding counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The patch must not be used.
    Refused,
    /// The patch works, but not as well as it could.
    Warned,
}

/// Who refuses what breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judge {
    /// Windows was seen to refuse it.
    Kernel,
    /// We refuse it; Windows may not.
    Strict,
    /// Windows refuses a part of it, and we the rest.
    Both,
}

impl Judge {
    /// One word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Judge::Kernel => "kernel",
            Judge::Strict => "strict",
            Judge::Both => "both",
        }
    }
}

/// A rule of the hot-patch metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The load configuration is there, whole, and long enough to name the metadata.
    A01,
    /// The address of the metadata is in the image.
    A02,
    /// The version is one of 1 to 4.
    A03,
    /// The metadata has at least its version's size and ends inside the image.
    A04,
    /// The sequence number is not 0.
    A05,
    /// There is exactly one base.
    A06,
    /// The list of bases and each base are inside the metadata.
    A07,
    /// The base names the image's machine, or none; and never two.
    A08,
    /// The image has no ARM64EC metadata.
    A09,
    /// The patch table is inside the metadata, aligned, and shares bytes with nothing else.
    A10,
    /// Every chunk and the zero word at the end are inside the metadata.
    A11,
    /// Reserved bits of chunks are 0.
    A12,
    /// No chunk is marked as obligatory.
    A13,
    /// The kind of each chunk is one that is known.
    A14,
    /// Forward chunks hold functions only.
    A15,
    /// Targets are inside the target image.
    A16,
    /// Places that are written are inside the source image.
    A17,
    /// A source function begins at 0x10 or later.
    A18,
    /// An index of a dynamic value is not 0xffffffff.
    A19,
    /// Call targets are aligned to 16 bytes and in code of the patch.
    A20,
    /// No function is redirected twice in one direction.
    A21,
    /// No two places that are written overlap.
    A22,
    /// Functions are in code, and what is written as data is in initialised data.
    A23,
    /// The expected bytes are those of the function.
    A24,
    /// The bytes before each redirected function are padding.
    A25,
    /// No redirected function begins one byte before an 8-byte boundary.
    A26,
    /// There are not more redirects than the address table has entries.
    A27,
    /// Time stamp and checksum are those of the base.
    A28,
    /// A record has at most 16 further words.
    A29,
    /// No base relocation changes a part of a place that is written.
    A30,
    /// Buffers and digests that are named are inside the metadata.
    A31,
}

impl Rule {
    /// How its findings may count.
    #[must_use]
    pub fn weights(self) -> &'static [Weight] {
        match self {
            Rule::A26 => &[Weight::Warned],
            Rule::A24 | Rule::A28 => &[Weight::Refused, Weight::Warned],
            _ => &[Weight::Refused],
        }
    }

    /// Every rule, in order.
    pub const ALL: [Rule; 31] = [
        Rule::A01,
        Rule::A02,
        Rule::A03,
        Rule::A04,
        Rule::A05,
        Rule::A06,
        Rule::A07,
        Rule::A08,
        Rule::A09,
        Rule::A10,
        Rule::A11,
        Rule::A12,
        Rule::A13,
        Rule::A14,
        Rule::A15,
        Rule::A16,
        Rule::A17,
        Rule::A18,
        Rule::A19,
        Rule::A20,
        Rule::A21,
        Rule::A22,
        Rule::A23,
        Rule::A24,
        Rule::A25,
        Rule::A26,
        Rule::A27,
        Rule::A28,
        Rule::A29,
        Rule::A30,
        Rule::A31,
    ];

    /// Its id, such as `A11`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Rule::A01 => "A01",
            Rule::A02 => "A02",
            Rule::A03 => "A03",
            Rule::A04 => "A04",
            Rule::A05 => "A05",
            Rule::A06 => "A06",
            Rule::A07 => "A07",
            Rule::A08 => "A08",
            Rule::A09 => "A09",
            Rule::A10 => "A10",
            Rule::A11 => "A11",
            Rule::A12 => "A12",
            Rule::A13 => "A13",
            Rule::A14 => "A14",
            Rule::A15 => "A15",
            Rule::A16 => "A16",
            Rule::A17 => "A17",
            Rule::A18 => "A18",
            Rule::A19 => "A19",
            Rule::A20 => "A20",
            Rule::A21 => "A21",
            Rule::A22 => "A22",
            Rule::A23 => "A23",
            Rule::A24 => "A24",
            Rule::A25 => "A25",
            Rule::A26 => "A26",
            Rule::A27 => "A27",
            Rule::A28 => "A28",
            Rule::A29 => "A29",
            Rule::A30 => "A30",
            Rule::A31 => "A31",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Rule, String> {
        let found = Rule::ALL
            .into_iter()
            .find(|rule| rule.id().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("{text} is no rule of hot-patch metadata (A01 to A31)"))
    }
}
