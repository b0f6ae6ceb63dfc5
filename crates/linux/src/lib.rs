//! A Linux process as a [`Target`](invivo_apply::Target): maps, memory, threads,
//! stacks, injected system calls.
//!
//! This is the only crate that touches a live process and the only one with unsafe
//! code. It decides nothing: what is done, and in which order, is `invivo-apply`'s.

mod awake;
mod bpf;
mod carrier;
mod cost;
mod deputy;
mod error;
mod exports;
mod filtered;
mod frozen;
mod gadgets;
mod hold;
mod incarnation;
mod late;
mod leaving;
mod lock;
mod mapped;
mod memory;
mod modules;
mod outside;
mod own_stack;
mod priority;
mod proc_file;
mod process;
mod ptrace;
mod resumed;
mod scan;
mod search;
mod seccomp;
mod seize;
mod sequence;
mod shared;
mod signal_frame;
mod slow;
mod stack_cache;
mod stop;
mod stray;
mod suspended;
mod switches;
mod symbols;
mod target;
mod thread_state;
mod ticks;
mod traits;
mod unwind;
mod workers;

pub use deputy::with_one_deputy;
pub use filtered::{CALLS, Filtered};
pub use incarnation::Incarnation;
pub use mapped::read_regular;
pub use priority::{last_processor, own_processor};
pub use process::{Access, Process, processes};
pub use scan::{Found, Scan};
pub use shared::lender;
pub use traits::Traits;
