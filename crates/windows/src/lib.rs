//! A process of Windows as a target.
//!
//! Nothing has to be prepared in it. What only it can do for itself (let its loader map an image,
//! change code in one store that every thread sees as a whole) is done by a thread that is made in
//! it for a moment; all else goes over its memory from outside. Its own threads go on, but for the
//! moments in which the engine wants to see where each of them is.
//!
//! Elsewhere than on Windows this crate is empty.
#![cfg(windows)]

mod calls;
mod error;
mod exchange;
mod handle;
mod memory;
mod names;
mod privilege;
mod process;
mod security;
mod snapshot;
mod standing;
mod stop;
mod target;

pub use exchange::{ExchangeError, Exchanged, install, uninstall};
pub use privilege::is_protected;
pub use process::{Access, Process};
pub use snapshot::{Running, is_not_ready, processes, started};
