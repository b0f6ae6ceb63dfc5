//! Processes that could not be looked at.

use schemars::JsonSchema;
use serde::Serialize;

/// A process that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Unseen {
    /// Its number.
    pub(crate) pid: u32,
    /// The name of its program.
    pub(crate) exe: String,
    /// What the system says.
    pub(crate) why: String,
    /// True for a process that Windows protects from everybody, administrators among them.
    pub(crate) protected: bool,
    /// What a command ends with that wanted it.
    #[serde(skip)]
    pub(crate) code: u8,
}
