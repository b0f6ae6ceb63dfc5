//! One module per command.

pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod blocking;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod diff;
pub(crate) mod exchange;
pub(crate) mod explain;
pub(crate) mod final_image;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod legacy;
pub(crate) mod list;
pub(crate) mod livepatch;
pub(crate) mod payload;
pub(crate) mod payload_dump;
pub(crate) mod plan;
pub(crate) mod recover;
pub(crate) mod revert;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod symbols;
pub(crate) mod texts;
pub(crate) mod trust;
pub(crate) mod windows;
pub(crate) mod xen;
