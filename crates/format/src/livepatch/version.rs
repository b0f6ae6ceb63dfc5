//! Which hypervisor is asked, and what it answers.

use std::fmt;
use std::str::FromStr;

/// A release of Xen, of which the branch is known and not the point release: where these differ what is
/// told is the stricter of their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XenVersion(u8);

impl XenVersion {
    /// The first release with this structure of payloads.
    pub const FIRST: XenVersion = XenVersion(14);
    /// The last one whose sources were read.
    pub const LAST: XenVersion = XenVersion(23);
    /// From here on the hypervisor's build id is looked at before anything of the payload is,
    /// and alternatives that are wrong are refused.
    pub(super) const EARLY_ID: XenVersion = XenVersion(20);
    /// Up to here Xen keeps state of its own in `.livepatch.funcs`: 4.17.3 and 4.18.1 do not any more,
    /// 4.17.2 and 4.18.0 do.
    pub(super) const LAST_WITH_STATE: XenVersion = XenVersion(18);
    /// From here on each release leaves an `ENDBR64` where it is; of the branches before only later
    /// ones do.
    pub(super) const KEEPS_ENDBR: XenVersion = XenVersion(17);
    /// From here on `.alt_call_sites` is known.
    pub(super) const CALL_SITES: XenVersion = XenVersion(21);

    /// All that are known, the oldest first.
    pub fn all() -> impl DoubleEndedIterator<Item = XenVersion> {
        (Self::FIRST.0..=Self::LAST.0).map(XenVersion)
    }

    /// Xen 4.`minor`; `None` for one that is not known.
    #[must_use]
    pub fn new(minor: u8) -> Option<XenVersion> {
        let version = XenVersion(minor);
        (Self::FIRST..=Self::LAST)
            .contains(&version)
            .then_some(version)
    }
}

impl fmt::Display for XenVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "4.{}", self.0)
    }
}

impl FromStr for XenVersion {
    type Err = String;

    /// Reads `4.17`, also with what may follow it (`4.17.3`).
    fn from_str(text: &str) -> Result<XenVersion, String> {
        let mut parts = text.split('.');
        let minor = match (parts.next(), parts.next()) {
            (Some("4"), Some(minor)) => minor.parse().ok().and_then(XenVersion::new),
            _ => None,
        };
        let (first, last) = (Self::FIRST, Self::LAST);
        minor.ok_or_else(|| format!("{text} is no version of Xen from {first} to {last}"))
    }
}

/// An error of Xen's calls. The hypervisor returns the number, negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "they are the well-known names")]
pub enum Errno {
    ENOENT = 2,
    ENOMEM = 12,
    EBUSY = 16,
    EEXIST = 17,
    EINVAL = 22,
    ENOSPC = 28,
    ERANGE = 34,
    ENODATA = 61,
    EOVERFLOW = 75,
    EOPNOTSUPP = 95,
}

impl Errno {
    /// The number, which is Xen's own and not that of the system.
    #[must_use]
    pub fn number(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
