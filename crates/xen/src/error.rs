//! What can go wrong, and what it means.

use core::fmt;
use core::time::Duration;

use alloc::string::String;
use alloc::vec::Vec;

use crate::{Errno, State};

/// What Xen was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Load a payload.
    Upload,
    /// Tell a payload's status.
    Get,
    /// Tell all payloads.
    List,
    /// Make a payload live.
    Apply,
    /// Make it live in the place of all that are.
    Replace,
    /// Take it back.
    Revert,
    /// Forget it.
    Unload,
}

impl Operation {
    /// The word that commands use.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Operation::Upload => "upload",
            Operation::Get => "get",
            Operation::List => "list",
            Operation::Apply => "apply",
            Operation::Replace => "replace",
            Operation::Revert => "revert",
            Operation::Unload => "unload",
        }
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Not a name that Xen takes.
    Name(String),
    /// A payload that Xen takes for none: empty, or more than 2 MiB.
    Size(usize),
    /// The hypervisor lets only its control domain do this.
    NotPrivileged,
    /// The hypervisor was built without live patching.
    NoLivepatch,
    /// The hypervisor speaks none of the interface versions that are known.
    Interface {
        /// Its version.
        major: u32,
        /// The second number of it.
        minor: u32,
    },
    /// The call itself was refused.
    Refused {
        /// What was asked for.
        operation: Operation,
        /// The hypervisor's answer.
        errno: Errno,
    },
    /// The call was taken, and the action failed then.
    Failed {
        /// What was asked for.
        operation: Operation,
        /// The result that the payload has now.
        errno: Errno,
        /// Where the payload is now.
        state: State,
    },
    /// A replace took all that was live back, and failed only then: the hypervisor goes on without any.
    Unpatched {
        /// The result that the payload has now.
        errno: Errno,
        /// The payloads that were taken back.
        reverted: Vec<String>,
    },
    /// Tried as often as allowed, and the hypervisor was busy each time.
    Busy {
        /// What was asked for.
        operation: Operation,
        /// How often.
        attempts: u32,
        /// True if the action was begun and the processors did not meet in time; false if
        /// another action kept it from beginning.
        begun: bool,
    },
    /// A payload that is live already, while others are too: Xen would do nothing and say 0.
    ReplaceApplied,
    /// The action has not ended in the time that was given. It may still do.
    Pending {
        /// What was asked for.
        operation: Operation,
        /// How long was waited.
        waited: Duration,
    },
    /// The list changed each time while it was read.
    Unsteady,
    /// An answer that cannot be.
    Answer {
        /// What was asked for.
        operation: Operation,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Error {
    /// The hypervisor's own answer, if it is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Refused { errno, .. }
            | Error::Failed { errno, .. }
            | Error::Unpatched { errno, .. } => Some(*errno),
            Error::Busy { .. } => Some(Errno::EBUSY),
            Error::NotPrivileged => Some(Errno::EPERM),
            Error::NoLivepatch => Some(Errno::ENOSYS),
            _ => None,
        }
    }
}

impl core::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Name(name) => write!(
                to,
                "`{}` is no name for a payload: it takes 1 to 127 bytes that can be printed",
                name.escape_debug()
            ),
            Error::Size(0) => to.write_str("the payload is empty"),
            Error::Size(size) => write!(
                to,
                "the payload has {size} bytes, and Xen takes no more than 2 MiB"
            ),
            Error::NotPrivileged => {
                to.write_str("the hypervisor lets only its control domain (dom0) do this")
            }
            Error::NoLivepatch => {
                to.write_str("this hypervisor was built without live patching (CONFIG_LIVEPATCH)")
            }
            Error::Interface { major, minor } => write!(
                to,
                "Xen {major}.{minor} speaks none of the interface versions 0x13 to 0x16 \
                 (Xen 4.14 to 4.23)"
            ),
            Error::Refused { operation, errno } => write!(
                to,
                "Xen refuses the {}: {errno}{}",
                operation.word(),
                meaning(*operation, *errno)
            ),
            Error::Failed {
                operation, errno, ..
            } => write!(
                to,
                "the {} failed: {errno}{}",
                operation.word(),
                failure(*errno)
            ),
            Error::Unpatched { errno, reverted } => write!(
                to,
                "the replace failed: {errno}, the code to replace is most likely not what the payload expects; Xen had \
                 taken back what was live ({}), and goes on without any payload",
                reverted.join(", ")
            ),
            Error::Busy {
                operation,
                attempts,
                begun: true,
            } => write!(
                to,
                "the {} did not happen: its processors did not meet in time ({attempts} attempts)",
                operation.word()
            ),
            Error::Busy {
                operation,
                attempts,
                begun: false,
            } => write!(
                to,
                "the {} did not begin: another action was going on ({attempts} attempts)",
                operation.word()
            ),
            Error::ReplaceApplied => to.write_str(
                "the payload is live already, and so are others; Xen would leave it at that",
            ),
            Error::Pending { operation, waited } => write!(
                to,
                "the {} has not ended after {} ms; it may still do",
                operation.word(),
                waited.as_millis()
            ),
            Error::Unsteady => to.write_str("the list of payloads changed each time it was read"),
            Error::Answer { operation, what } => {
                write!(to, "Xen's answer to {} cannot be: {what}", operation.word())
            }
        }
    }
}

/// What an answer means, as far as it means one thing.
fn meaning(operation: Operation, errno: Errno) -> &'static str {
    match (operation, errno) {
        (Operation::Upload, Errno::EEXIST) => {
            ", a payload of this name, with this build id or with a symbol of the same name is loaded"
        }
        (Operation::Upload, Errno::ENOENT) => {
            ", a symbol that the payload needs is neither in this hypervisor nor in a payload"
        }
        (Operation::Upload, Errno::EINVAL) => {
            ", it was made for another build of Xen, or its form is wrong"
        }
        (Operation::Upload, Errno::ENODATA) => ", a build id is missing or is no note",
        (Operation::Upload, Errno::EOPNOTSUPP) => {
            ", it uses something that this version of Xen does not have"
        }
        (Operation::Upload, Errno::ENOMEM) => ", there is no room near the hypervisor",
        (Operation::Upload, Errno::EOVERFLOW) => ", a distance in it is too long",
        (Operation::List | Operation::Upload, _) => "",
        (_, Errno::ENOENT) => ", no payload of this name is loaded",
        (Operation::Unload, Errno::EINVAL) => ", it is live",
        (Operation::Revert, Errno::EBUSY) => ", it is not the one that was applied last",
        (Operation::Apply, Errno::EINVAL) => {
            ", it depends on another payload than the one applied last, or the code to replace is not \
             what it expects"
        }
        (Operation::Replace, Errno::EINVAL) => {
            ", it does not depend on Xen itself, or the code to replace is not what it expects"
        }
        (Operation::Replace, Errno::EOPNOTSUPP) => {
            ", it or a payload that is live has hooks before or after, which replace cannot call"
        }
        _ => "",
    }
}

/// What a result means that was found after the call had succeeded.
fn failure(errno: Errno) -> &'static str {
    match errno {
        Errno::EINVAL => {
            ", a payload with variables cannot be applied again (unload it and upload it anew), or \
             the code to replace is not what it expects"
        }
        _ => "",
    }
}
