//! What is applied, read from the target itself; stops nothing.

use invivo_image::demangle;
use invivo_patch::Hex;
use serde::Serialize;

use crate::found::read_all;
use crate::record::State;
use crate::{Target, TargetError};

/// A patch in a target.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Applied {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub id: String,
    /// The build id of the image that it is for.
    #[serde(skip)]
    pub build_id: Hex,
    /// What it fixes.
    pub labels: Vec<String>,
    /// How far it has come.
    pub state: State,
    /// Why it does not do what it should, if it is live and not all of it is in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Functions that it replaces.
    pub functions: Vec<String>,
    /// The program and version that applied it.
    pub applied_by: String,
}

/// Patches in `target`, without those that were taken back.
///
/// # Errors
/// When the target is gone or may not be read.
pub fn list(target: &dyn Target) -> Result<Vec<Applied>, TargetError> {
    let mut all = list_all(target)?;
    all.retain(|patch| patch.state != State::Reverted);
    Ok(all)
}

/// Patches in `target`, those too that were taken back and whose memory is still there.
///
/// # Errors
/// As [`list`].
pub fn list_all(target: &dyn Target) -> Result<Vec<Applied>, TargetError> {
    let records = read_all(target)?.into_iter();
    Ok(records
        .map(|(record, state)| Applied {
            reason: match state {
                State::Applied => record.told_missing(&record.missing(target)),
                _ => None,
            },
            name: record.name,
            id: record.id.to_string(),
            build_id: record.build_id,
            labels: record.labels,
            state,
            functions: record.functions.iter().map(|name| demangle(name)).collect(),
            applied_by: record.applied_by,
        })
        .collect())
}
