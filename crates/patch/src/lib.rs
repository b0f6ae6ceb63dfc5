//! What is a patch? The model, its invariants, and the planner that turns a
//! comparison into a patch.
//!
//! Every file format is a way to write this model down; every target is a place
//! where it is made true.

mod agreement;
mod annexes;
mod code;
mod constants;
mod doubt;
mod entry;
mod final_image;
mod frames;
mod hold;
mod imports;
mod linked;
mod model;
mod planner;
mod prologue;
mod references;
mod validate;

pub use entry::Entry;
pub use final_image::{
    FinalPlan, HookRoom, HotPatchMarks, Link, Unmatched, arm64_entry, plan_cold, plan_final,
    plan_module,
};
pub use hold::{Held, Running, hold_code, hold_constant};
pub use invivo_compare::{Judgement, Rule};
pub use linked::bind_to_program;
pub use model::{
    Bound, Callout, Check, Contents, Digest, Direction, Hex, Identity, ImportVersion, Moment,
    Order, Patch, Redirect, Relocation, RelocationKind, Section, SectionKind, Symbol, SymbolPlace,
    TargetImage,
};
pub use planner::{Options, Refused, plan};
pub use prologue::{Effect, Step};
pub use validate::InvalidPatch;
