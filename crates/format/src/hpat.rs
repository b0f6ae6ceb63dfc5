//! The hot-patch metadata of modern Windows (10 and later): a stream of
//! records inside a PE image, which its load configuration points to.
//!
//! ```text
//! load configuration ─► INFO ─► list of BASE ─► chunks ─► records
//! ```
//!
//! The layouts of INFO, BASE and HASHES and all numbers are those of the
//! Windows SDK headers. What the kernel accepts is known from descriptions of
//! shipped builds only; nothing here was held against Windows itself.

mod build;
mod model;
mod place;
mod read;
mod rules;
mod validate;
mod write;

pub use build::{BuildError, build, machine_flag};
pub use model::{
    Base, Chunk, ChunkKind, HotPatch, Integrity, LARGEST_CHUNK, Record, base_flags, info_flags,
};
pub use place::{PlaceError, Placed, place};
pub use read::{Parsed, Places, read, read_metadata};
pub use rules::{About, Judge, Rule, Weight};
pub use validate::{Finding, MOST_FINDINGS, Options, Report, validate};
pub use write::write;

/// Why there is no hot-patch metadata to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {text}")]
pub struct HpatError {
    /// The rule that is broken.
    pub rule: Rule,
    /// Who would refuse it.
    pub judge: Judge,
    /// What is wrong, and where.
    pub text: String,
}

impl HpatError {
    fn kernel(rule: Rule, text: impl Into<String>) -> HpatError {
        HpatError {
            rule,
            judge: Judge::Kernel,
            text: text.into(),
        }
    }

    fn strict(rule: Rule, text: impl Into<String>) -> HpatError {
        HpatError {
            rule,
            judge: Judge::Strict,
            text: text.into(),
        }
    }
}
