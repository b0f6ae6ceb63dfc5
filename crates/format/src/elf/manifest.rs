//! The manifest: what ELF has no words for.

use invivo_image::Rva;
use invivo_patch::{
    Callout, Check, Identity, ImportVersion, Judgement, Order, Redirect, TargetImage,
};
use serde::{Deserialize, Serialize};

/// The form of patch that is written.
pub(super) const VERSION: u32 = 2;

/// `.invivo.manifest`, as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) version: u32,
    pub(super) identity: Identity,
    pub(super) target: TargetImage,
    pub(super) order: Order,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) judgements: Vec<Judgement>,
    pub(super) redirects: Vec<Redirect>,
    pub(super) checks: Vec<Check>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) callouts: Vec<Callout>,
    /// Places of the undefined symbols in the base, in their order.
    pub(super) bindings: Vec<Rva>,
    /// Versions of the undefined symbols that follow: those of other images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) imports: Vec<Option<ImportVersion>>,
}

/// Only the version, to tell a newer form from a broken one.
#[derive(Debug, Deserialize)]
pub(super) struct Form {
    pub(super) version: u32,
}
