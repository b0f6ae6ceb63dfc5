//! Make it live, or leave it exactly as it was.
//!
//! The order never changes: everything is computed and checked against the
//! target before the first write ([`Preflight`]); then memory is made and filled
//! while the target runs; then one switch makes all hooks live together; and what
//! has been done stands in the target's own memory ([`Record`]) before it is done.

mod again;
mod back;
mod blocking;
mod callouts;
mod changes;
mod clean;
mod expected;
mod find;
mod fixed;
mod found;
mod going_live;
pub mod hotp1;
pub mod hpat;
mod layout;
mod left;
mod list;
mod memory;
mod pages;
mod pe;
mod preflight;
mod quiescence;
mod quiet;
mod record;
mod registration;
mod revert;
mod room;
mod sane;
mod settle;
mod spare;
mod status;
mod stops;
mod switch;
mod symbols;
mod target;
mod transaction;
mod unload;
pub mod x86_64;

pub use back::revert_to;
pub use blocking::blocking;
pub use callouts::{Called, Callouts, Placed};
pub use layout::Layout;
pub use left::put_back_left;
pub use list::{Applied, list, list_all};
pub use memory::MemoryTarget;
pub use pe::{HookChange, Loaded, Planned, PlannedHook, places_near};
pub use preflight::{Hook, Preflight};
pub use quiescence::{Blocker, Frame};
pub use record::{FunctionRecord, HookRecord, ImportRecord, Record, State};
pub use revert::{held, revert};
pub use sane::shown;
pub use settle::recover;
pub use status::{Standing, Status, status};
pub use stops::{Step, Stop, Stops};
pub use symbols::{PatchSymbols, symbols};
pub use target::{Module, Protection, Region, Stack, Stopped, Target, TargetError, Thread, Visit};
pub use transaction::{Consistency, Options, Outcome, OutcomeState, SwitchKind, apply, replace};
pub use unload::{Unloaded, address_in, unload};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It does not match the target, or is not proved safe: trying again will not help.
    #[error("{0}")]
    Refused(String),
    /// Threads were inside the functions to replace until the time was over.
    #[error("{}", blocked(.0))]
    Blocked(Vec<Blocker>),
    /// The target did not allow or survive a step.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A step failed and could not be undone.
    #[error("the target may be inconsistent: {0}")]
    Inconsistent(String),
}

fn blocked(blockers: &[Blocker]) -> String {
    let mut text =
        String::from("threads of the target are inside functions that the patch replaces");
    for blocker in blockers {
        text.push_str("\n  ");
        text.push_str(&blocker.to_string());
    }
    text
}

pub(crate) fn refused<T>(text: impl Into<String>) -> Result<T, ApplyError> {
    Err(ApplyError::Refused(text.into()))
}
