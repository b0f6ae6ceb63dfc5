//! The name that a payload is uploaded under.

use core::fmt;

use alloc::borrow::ToOwned;
use alloc::string::String;

use crate::Error;

/// The longest name, without the NUL that ends it (`XEN_LIVEPATCH_NAME_SIZE` is 128).
const LONGEST: usize = 127;

/// A name that Xen accepts: 1 to 127 bytes, none of them NUL, line end or other control
/// character (the hypervisor prints it on its console, and tools a line for each).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// # Errors
    ///
    /// [`Error::Name`] if it is empty, too long or not printable.
    pub fn new(name: &str) -> Result<Name, Error> {
        let printable = !name.chars().any(char::is_control);
        if name.is_empty() || name.len() > LONGEST || !printable {
            return Err(Error::Name(name.to_owned()));
        }
        Ok(Name(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
