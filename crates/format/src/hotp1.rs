//! The hot patches of Windows Server 2003 to Windows 7: the section `.hotp1` of a patch module.
//!
//! ```text
//! HOTPATCH_HEADER ─► fixup regions, validations, hooks, the target's name
//! ```
//!
//! The names are those of the format. No sample of Microsoft's is at hand: the layouts are those
//! of a public header and of the description of 2007, which agree.

mod build;
mod code;
mod cold;
mod model;
mod read;
mod rules;
mod shape;
mod validate;
mod write;

pub(crate) use build::made_of;
pub use build::{BuildError, build};
pub use code::{CodeError, HookCode, Places};
pub use cold::{
    Cold, ColdError, MARK, MARK_SIZE, cold, cold_mark, cold_mark_of, is_cold, validate_cold,
};
pub use model::{
    Fixup, FixupKind, FixupRegion, Hook, HookKind, LegacyPatch, ModuleId, Validation, hook_options,
    validation_flags,
};
pub use read::read;
pub use rules::Rule;
pub use shape::HookShape;
pub use validate::{Finding, validate};
pub use write::write;

use invivo_image::pe::PeImage;

/// The section's name.
pub const SECTION: &str = ".hotp1";

/// True for the section's name: Windows looks for it with two spaces behind it; zeros tell as
/// plainly what is meant.
#[must_use]
pub fn is_section(name: &str) -> bool {
    name.trim_end_matches(' ') == SECTION
}

/// True for an image that says it is a patch module of older Windows.
#[must_use]
pub fn is_legacy(image: &PeImage) -> bool {
    image
        .sections
        .iter()
        .any(|section| is_section(&section.name))
}

/// Why there is no such patch to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {text}")]
pub struct Hotp1Error {
    /// The rule that is broken.
    pub rule: Rule,
    /// What is wrong, and where.
    pub text: String,
}

impl Hotp1Error {
    fn new(rule: Rule, text: impl Into<String>) -> Self {
        Hotp1Error {
            rule,
            text: text.into(),
        }
    }
}
