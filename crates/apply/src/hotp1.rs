//! Hot patches of Windows Server 2003 to 7 (`.hotp1`) made live: a patch module is loaded beside
//! its target, its own words are fixed up, and places of the target are changed, all of them in
//! one step that nothing interrupts. A patch can be removed in the same way.
//!
//! The order is that of the description of 2007. The numbers in refusals are the statuses that
//! Windows gave. What is not described is decided here on the safe side.

mod checks;
mod earlier;
mod fixups;
mod found;
mod holders;
mod hooks;
mod host;
mod lasting;
mod leaving;
mod opening;
mod planned;
mod record;
mod standing;
mod switch;

use std::slice;
use std::time::Duration;

use invivo_format::hotp1::{LegacyPatch, Places, read, validate};
use invivo_image::LiveAddr;

use crate::pe::Journal;
use crate::{ApplyError, Loaded, Target, TargetError, refused};
use earlier::Earlier;
pub use holders::holders;
use hooks::Descriptor;
pub(crate) use host::blocks;
pub use host::{Done, apply, list, recover, revert};
pub use planned::plan;
use record::Witness;
pub use record::{LegacyHookRecord, LegacyPatchRecord, LegacyRecord};
pub use standing::{Concerned, standing};

/// Statuses of Windows that refusals name.
pub mod status {
    /// `STATUS_INVALID_IMAGE_FORMAT`: the patch is broken, or leads out of an image.
    pub const BROKEN: u32 = 0xc000_007b;
    /// `STATUS_DATA_ERROR`: the target has other bytes.
    pub const DATA: u32 = 0xc000_003e;
    /// `STATUS_CONFLICTING_ADDRESSES`: the images are too far from each other.
    pub const FAR: u32 = 0xc000_0018;
    /// `STATUS_REVISION_MISMATCH`: the target is another build.
    pub const REVISION: u32 = 0xc000_0059;
    /// `STATUS_NOT_IMPLEMENTED`: a type that no system implements.
    pub const NOT_IMPLEMENTED: u32 = 0xc000_0002;
}

/// `PATCHFLAG_COLDPATCH_VALID`: the target's file was patched before, to the same end.
pub const COLD_PATCH_VALID: u32 = 0x1_0000;

/// A module in a target with the list of patches that hang on it (`PatchInformation`).
#[derive(Clone, Debug)]
pub struct PatchedModule {
    target: Loaded,
    list: Vec<Listed>,
}

/// A patch in the list of its target (`RTL_PATCH_HEADER`).
#[derive(Clone, Debug)]
pub struct Listed {
    /// The patch module. It stays loaded: a thread may be inside.
    pub patch: Loaded,
    /// See [`COLD_PATCH_VALID`].
    pub flags: u32,
    /// True while its hooks are in the target.
    pub active: bool,
    hooks: Vec<Descriptor>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Places of the target that were changed.
    pub hooks: usize,
    /// How long all threads stood.
    pub stopped: Duration,
}

impl PatchedModule {
    /// A module that nothing was done to.
    #[must_use]
    pub fn new(target: Loaded) -> PatchedModule {
        PatchedModule {
            target,
            list: Vec::new(),
        }
    }

    /// A module with the list of patches that hang on it already.
    fn with_list(target: Loaded, list: Vec<Listed>) -> PatchedModule {
        PatchedModule { target, list }
    }

    /// The module.
    #[must_use]
    pub fn target(&self) -> &Loaded {
        &self.target
    }

    /// The patches that were applied, also those that were removed, in that order.
    #[must_use]
    pub fn list(&self) -> &[Listed] {
        &self.list
    }

    /// Checks all that a patch needs; nothing is written. Gives the number of its hooks.
    ///
    /// # Errors
    /// When it breaks a rule of its format, is for another build, or the target is not as it expects.
    pub fn preflight(&self, target: &dyn Target, patch: &Loaded) -> Result<usize, ApplyError> {
        let plan = self.plan(target, patch)?;
        Ok(plan.hooks.len())
    }

    /// Applies a patch, or applies one again that was removed.
    ///
    /// # Errors
    /// When [`preflight`](Self::preflight) refuses it, a thread stays inside what is replaced, or a
    /// step fails; then everything is as it was.
    pub fn apply(
        &mut self,
        target: &mut dyn Target,
        patch: &Loaded,
    ) -> Result<Outcome, ApplyError> {
        self.apply_before(target, patch, &mut |_, _| Ok(()))
    }

    /// The same where `witness` is told what is about to change in the target.
    fn apply_before(
        &mut self,
        target: &mut dyn Target,
        patch: &Loaded,
        witness: &mut Witness<'_>,
    ) -> Result<Outcome, ApplyError> {
        let plan = self.plan(target, patch)?;
        let mut journal = Journal::default();
        let fixed = plan
            .fixups
            .iter()
            .try_for_each(|(at, bytes)| journal.write(target, *at, bytes));
        let told = fixed
            .map_err(ApplyError::from)
            .and_then(|()| witness(target, &record::installing(&plan.hooks)));
        let done = told.and_then(|()| switch::install(target, &plan.hooks));
        let stopped = match done {
            Ok(stopped) => stopped,
            Err(error @ ApplyError::Inconsistent(_)) => return Err(error),
            Err(error) => {
                return Err(match journal.undo(target) {
                    Ok(()) => error,
                    Err(second) => ApplyError::Inconsistent(format!("{error}; then {second}")),
                });
            }
        };
        let outcome = Outcome {
            hooks: plan.hooks.len(),
            stopped,
        };
        // One that is applied again lies over those that came meanwhile.
        self.list.retain(|listed| listed.patch.at != patch.at);
        self.list.push(Listed {
            patch: patch.clone(),
            flags: plan.flags,
            active: true,
            hooks: plan.hooks,
        });
        Ok(outcome)
    }

    /// Removes a patch: its places hold again what they held before it.
    ///
    /// # Errors
    /// When it is not active, a later patch changed the same places, somebody else did, a thread
    /// stays on its way through them, or a step fails; then everything is as it was.
    pub fn remove(
        &mut self,
        target: &mut dyn Target,
        patch: LiveAddr,
    ) -> Result<Outcome, ApplyError> {
        self.remove_before(target, patch, &mut |_, _| Ok(()))
    }

    /// The same where `witness` is told what is about to change in the target.
    fn remove_before(
        &mut self,
        target: &mut dyn Target,
        patch: LiveAddr,
        witness: &mut Witness<'_>,
    ) -> Result<Outcome, ApplyError> {
        let found = self.list.iter().position(|listed| listed.patch.at == patch);
        let Some(place) = found.filter(|place| self.list[*place].active) else {
            return refused(format!("no active patch is at {patch}"));
        };
        let hooks = &self.list[place].hooks;
        let mut places: Vec<_> = hooks.iter().map(Descriptor::range).collect();
        places.sort_by_key(|place| place.start);
        for later in &self.list[place + 1..] {
            if Earlier::of(slice::from_ref(later)).meets(&places) {
                let at = later.patch.at;
                return refused(format!(
                    "the patch at {at} lies over it; remove that one first"
                ));
            }
        }
        for hook in hooks {
            if !target.holds(hook.at, &hook.code)? {
                return refused(format!("somebody changed the hook at {}", hook.at));
            }
        }
        witness(target, &record::removing(hooks))?;
        let stopped = switch::remove(target, hooks)?;
        let outcome = Outcome {
            hooks: hooks.len(),
            stopped,
        };
        self.list[place].active = false;
        Ok(outcome)
    }

    fn plan(&self, target: &dyn Target, patch: &Loaded) -> Result<Plan, ApplyError> {
        self.target.check_identity(target)?;
        patch.check_identity(target)?;
        if patch.image.machine != self.target.image.machine {
            return at_status(
                status::BROKEN,
                "the patch and its target are for two machines",
            );
        }
        let model = match read(&patch.image) {
            Ok(Some(model)) => model,
            Ok(None) => return at_status(status::BROKEN, "the module has no section .hotp1"),
            Err(error) => return at_status(status::BROKEN, &error.to_string()),
        };
        // The target is looked at as it is now, not as its file was.
        if let Some(first) = validate(&patch.image, &model, None).first() {
            return at_status(status::BROKEN, &first.to_string());
        }
        let listed = self.list.iter().find(|listed| listed.patch.at == patch.at);
        if listed.is_some_and(|listed| listed.active) {
            return refused(format!("the patch at {} is active already", patch.at));
        }
        let flags = checks::identity(&self.target.image, &model)?;
        let look = Look {
            module: self,
            patch,
            model: &model,
            cold: flags & COLD_PATCH_VALID != 0,
        };
        checks::validations(&look, target)?;
        let hooks = hooks::descriptors(&look, target)?;
        // Also of one that was applied before: an apply that failed took them back.
        let fixups = fixups::words(&look, target)?;
        Ok(Plan {
            flags,
            fixups,
            hooks,
        })
    }
}

/// What would be done.
struct Plan {
    flags: u32,
    fixups: Vec<(LiveAddr, Vec<u8>)>,
    hooks: Vec<Descriptor>,
}

/// A patch beside its target.
struct Look<'a> {
    module: &'a PatchedModule,
    patch: &'a Loaded,
    model: &'a LegacyPatch,
    /// True if the target's file was patched to the same end.
    cold: bool,
}

impl Look<'_> {
    fn places(&self) -> Places {
        Places {
            machine: self.patch.image.machine,
            target: self.module.target.at.0,
            patch: self.patch.at.0,
        }
    }
}

fn at_status<T>(status: u32, text: &str) -> Result<T, ApplyError> {
    refused(format!("{text} ({status:#010x})"))
}

/// A thread was always where it must not be.
fn busy(who: &str) -> ApplyError {
    let text = format!("a thread stays inside what is replaced: {who}");
    TargetError::NotNow(text).into()
}
