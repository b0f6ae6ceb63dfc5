//! Replaced functions without the jump at their entries: what leads to them is led to the new code.
//!
//! Xen writes only jumps and NOPs, so hooks of the payload write, in the moment in which Xen writes its
//! own. Entries of `.livepatch.funcs` that change nothing have Xen look, before anything
//! is applied, whether each place is as `xen-syms` has it; if not, it refuses with EINVAL.
//!
//! The jump is left out only where nothing else can lead to the old function. Pointers may have been
//! copied while Xen ran, so beside them it always stays.

use invivo_image::BuildId;

use super::{Function, Hypervisor, Known, New, Old, Payload, StructureVersion};
use places::Places;
use references::Site;

mod places;
mod plan;
mod redirected;
mod references;
mod stub;
mod write;

pub use redirected::{Redirection, bypassed, redirections};

/// The most places of a payload: Xen looks at each while it applies, with all processors waiting.
const MOST_SITES: usize = 1024;
/// What bounds parts of Xen: pointers to such a place may mean the part.
const BOUNDS: [&str; 5] = ["_start", "_stext", "_etext", "_stextentry", "_etextentry"];

/// What is led to the new code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Splice {
    /// Calls and jumps in the code of Xen.
    Callers,
    /// Pointers in its variables and constants.
    Tables,
}

/// What became of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spliced {
    /// Its name.
    pub function: String,
    /// How many calls and jumps lead to the new code.
    pub calls: usize,
    /// How many pointers do.
    pub pointers: usize,
    /// How many calls do not matter: they ran at boot, or are in functions that are replaced.
    pub dead: usize,
    /// Why the jump at the entry stays; none if it was left out.
    pub jump: Option<String>,
}

/// Why nothing is led elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what leads to {function} cannot be redirected: {why}")]
pub struct SpliceError {
    /// The function.
    pub function: String,
    /// What is not so, or not proved.
    pub why: String,
}

/// What is planned for one function.
struct Planned<'x> {
    /// Its number in the payload.
    number: usize,
    known: Known,
    branches: Vec<Site<'x>>,
    pointers: Vec<Site<'x>>,
    dead: usize,
    jump: Option<String>,
}

/// Leads `what` leads to functions that the payload replaces to their new code.
///
/// The hypervisor is read from its `xen-syms`, and the payload is for it. What became of each
/// function that is replaced by code is told in the payload's order.
///
/// # Errors
/// The first function of which nothing can be led elsewhere, and why; what the payload or the file
/// lacks. The payload is as it was then.
pub fn splice(
    payload: &mut Payload,
    xen: &Hypervisor<'_>,
    what: &[Splice],
) -> Result<Vec<Spliced>, SpliceError> {
    let first = payload.functions.first();
    let first = first
        .map_or("nothing", |function| &function.name)
        .to_owned();
    let error = |function: &str, why: String| SpliceError {
        function: function.to_owned(),
        why,
    };
    is_for(payload, xen.build_id()).map_err(|why| error(&first, why))?;
    let places = Places::of(xen).map_err(|why| error(&first, why))?;
    let mut targets = Vec::new();
    for (number, function) in payload.functions.iter().enumerate() {
        let is_replaced = matches!(function.new, New::Code { .. }) && function.old == Old::Name;
        if is_replaced {
            let known = known(xen, function).map_err(|why| error(&function.name, why))?;
            targets.push((number, known));
        }
    }
    let ranges = targets.iter();
    let ranges = ranges.map(|(_, known)| known.address..known.address.saturating_add(known.size));
    let replaced: Vec<_> = ranges.collect();
    let mut planned = Vec::new();
    for (number, known) in targets {
        let function = &payload.functions[number];
        let found = references::find(&places, known, &replaced);
        let plan = plan::plan(payload, &places, (number, known), found, what);
        planned.push(plan::has_room(xen, plan).map_err(|why| error(&function.name, why))?);
    }
    let sites = |one: &Planned<'_>| one.branches.len() + one.pointers.len();
    let count: usize = planned.iter().map(sites).sum();
    if count > MOST_SITES {
        let why = format!("{count} places lead there, and Xen would look at {MOST_SITES} at most");
        return Err(error(&first, why));
    }
    if count == 0 {
        let reason = planned.first().and_then(|one| one.jump.clone());
        let why = reason.unwrap_or_else(|| "no function is replaced by its name".to_owned());
        return Err(error(&first, why));
    }
    let told = planned.iter().map(|one| Spliced {
        function: payload.functions[one.number].name.clone(),
        calls: one.branches.len(),
        pointers: one.pointers.len(),
        dead: one.dead,
        jump: one.jump.clone(),
    });
    let told = told.collect();
    write::write(payload, xen, &planned);
    Ok(told)
}

fn is_for(payload: &Payload, xen: Option<&BuildId>) -> Result<(), String> {
    let Some(xen) = xen else {
        return Err("the file of Xen has no build id; give xen-syms".to_owned());
    };
    if payload.version != StructureVersion::V2 {
        return Err("Xen 4.13 and older look at no code before they apply".to_owned());
    }
    if payload.xen_depends.as_ref() != Some(xen) {
        return Err(format!(
            "the payload is for another hypervisor than that of build id {xen}, whose code is \
             elsewhere"
        ));
    }
    if redirected::is_spliced(payload) {
        return Err("it is so already".to_owned());
    }
    Ok(())
}

fn known(xen: &Hypervisor<'_>, function: &Function) -> Result<Known, String> {
    let known = xen.find(function.name.as_bytes());
    let known = known.ok_or("this hypervisor has no function of the name")?;
    let bounds = BOUNDS.iter().filter_map(|name| xen.find(name.as_bytes()));
    if bounds
        .into_iter()
        .any(|bound| bound.address == known.address)
    {
        return Err("it is where a part of Xen begins".to_owned());
    }
    if xen.code(known).is_none_or(<[u8]>::is_empty) {
        return Err("its code is not in the file of Xen; give xen-syms".to_owned());
    }
    Ok(known)
}
