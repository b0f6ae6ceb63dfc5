//! The payloads that the Xen hypervisor patches itself with: ELF relocatable files.
//!
//! ```text
//! .livepatch.funcs ─► what is replaced by what      .livepatch.depends, .xen_depends ─► for whom
//! .livepatch.hooks.* ─► what is called, and when    .note.gnu.build-id ─► its own name
//! ```
//!
//! The names are those of Xen. The facts are those of its public headers and of its documentation,
//! held against real hypervisors: see the tests in `tests/xen`.

mod bind;
mod build_id;
mod file;
mod function;
mod hypervisor;
mod model;
mod model_check;
mod predict;
mod read;
mod rules;
mod splice;
mod trace;
mod version;
mod write;

pub use bind::{Binding, Bound, bind};
pub use build_id::efi_build_id;
pub use function::{
    Expectation, Function, MOST_EXPECTED, MOST_NOPS, New, Old, StructureVersion, has_endbr,
    shortest_patchable,
};
pub use hypervisor::{Hypervisor, Known};
pub use model::{
    Access, Contents, Hook, Moment, Payload, Reference, Relocation, RelocationKind, Section,
    Symbol, SymbolPlace,
};
pub use predict::{Finding, Loaded, Options, Prediction, predict};
pub use read::{Read, is_payload, read};
pub use rules::{Effect, Rule};
pub use splice::{Redirection, Splice, SpliceError, Spliced, bypassed, redirections, splice};
pub use trace::{TraceError, trace};
pub use version::{Errno, XenVersion};
pub use write::{Written, write, write_listed};

/// The section of `struct livepatch_func`.
pub const FUNCTIONS: &str = ".livepatch.funcs";
/// The note with the build id of what must be applied below.
pub const DEPENDS: &str = ".livepatch.depends";
/// The note with the build id of the hypervisor.
pub const XEN_DEPENDS: &str = ".livepatch.xen_depends";
/// The note with the payload's own build id.
pub const OWN_ID: &str = ".note.gnu.build-id";
/// `key=value` texts that `xen-livepatch list` shows.
pub const MODINFO: &str = ".modinfo";
/// How the text in `.modinfo` begins that tells a payload of Invivo's from every other one.
pub const LISTED_ID: &str = "invivo.id=";
/// Where this writer puts the functions' names.
pub const NAMES: &str = ".livepatch.names";

/// Why there is no such payload to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {text}")]
pub struct LivepatchError {
    /// The rule that is broken.
    pub rule: Rule,
    /// What is wrong, and where.
    pub text: String,
}

impl LivepatchError {
    fn new(rule: Rule, text: impl Into<String>) -> Self {
        LivepatchError {
            rule,
            text: text.into(),
        }
    }
}
