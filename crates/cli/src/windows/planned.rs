//! `plan --json` of the program for Windows. It is known elsewhere, too, for its schema.

use invivo_apply::{HookChange, Stop};
use schemars::JsonSchema;
use serde::Serialize;

use crate::unseen::Unseen;

/// `plan --json` of the program for Windows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WindowsPlans {
    pub(crate) schema: &'static str,
    pub(crate) processes: Vec<ProcessPlan>,
    /// Where all were wanted: who could not be looked at.
    pub(crate) unseen: Vec<Unseen>,
}

/// What apply would do in one process.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct ProcessPlan {
    pub(crate) pid: u32,
    /// `ready`; `refused` with the reason why apply would be, or would have to do something else first.
    pub(crate) state: &'static str,
    /// The file of the image that the patch is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<String>,
    pub(crate) hooks: Vec<HookPlan>,
    /// Bytes of new memory, the patch's own among them.
    pub(crate) memory: u64,
    /// True if all threads have to stop for a moment when it is applied.
    pub(crate) needs_stop: bool,
    /// Why all threads stop, when it is applied and when it is taken back later.
    pub(crate) stops: Vec<Stop>,
    /// Libraries that the loader would load for the patch; where it does not find them, it is refused.
    pub(crate) libraries: Vec<String>,
    /// What is known only once something was changed: the loader has brought the patch to its place, or memory
    /// was given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) open: Option<String>,
    /// What does not stand in the way, and should be known.
    pub(crate) warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// A place of the base that would change.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HookPlan {
    /// The name by which the base exports what begins there, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    /// Its address.
    pub(crate) at: String,
    /// The same in the base.
    pub(crate) rva: String,
    /// What is written there: of a final image `short jump to padding`, `address in the table` or
    /// `own first bytes`, of a patch module the type of its hook.
    pub(crate) form: &'static str,
    pub(crate) change: HookChange,
    /// Where in the patch it leads, if that is known before the loader has brought it to its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leads_to: Option<String>,
}
