//! Payloads on real hypervisors: Debian's own, booted under an emulator, in about a second.
//!
//! ```no_run
//! use xen_tests::{Hypervisor, Machine, Script};
//!
//! # fn example(payload: &[u8]) -> anyhow::Result<()> {
//! let mut script = Script::new();
//! let uploaded = script.upload("fix", payload);
//! let applied = script.apply("fix");
//! let version = script.extra_version();
//! let run = Machine::of(&Hypervisor::get("4.17")?).run(&script)?;
//! assert!(run[uploaded].is_done() && run[applied].is_done());
//! println!("{:?}", run[version]);
//! # Ok(())
//! # }
//! ```
//!
//! What runs there is `dom0`, a kernel that drives Xen with the crate `invivo-xen`. A hypervisor
//! that crashes is a result like any other ([`End::Crashed`]).

mod answer;
mod archive;
mod emulator;
pub mod held;
pub mod hypervisor;
#[path = "../../../crates/format/tests/payload/kept.rs"]
pub mod kept;
pub mod linux;
mod machine;
pub mod payload;
mod script;
pub mod source;

pub use answer::Answer;
pub use hypervisor::{Hypervisor, VERSIONS};
pub use invivo_xen::{Errno, Listed, Listing, Patience, State, Status};
pub use machine::{End, Machine, Run};
pub use script::{Script, Step};
