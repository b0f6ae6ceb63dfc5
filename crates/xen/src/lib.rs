//! A Xen hypervisor as a target: the livepatch calls, and the care that they want.
//!
//! [`Control`] drives the life of payloads: upload, apply, replace, revert, unload, and what is
//! there. It knows what Xen leaves to its callers: an action is only *scheduled* when the call
//! returns, its result may contradict the call's, a rendezvous of processors may fail for no
//! lasting reason, and a list may change while it is read.
//!
//! Nothing of that needs an operating system. What issues a call is behind [`Hypercall`]: in a
//! Linux dom0 the privileged-command device (`device`), in the project's tests a small kernel
//! that runs on a real Xen.
//!
//! Layouts and numbers are those of Xen's public headers `xen/include/public/sysctl.h` and
//! `version.h`, interface versions 0x13 to 0x16 (Xen 4.14 to 4.23).

#![cfg_attr(not(feature = "device"), no_std)]

extern crate alloc;

pub mod block;
mod control;
#[cfg(feature = "device")]
pub mod device;
mod errno;
mod error;
mod hypercall;
mod listing;
mod name;

pub use block::{Action, State, Status};
pub use control::{Control, Done, Patience};
pub use errno::Errno;
pub use error::{Error, Operation};
pub use hypercall::{Buffer, Hypercall};
pub use listing::{Listed, Listing};
pub use name::Name;
