//! What making a patch of a Windows image live would do, told before anything is done.

use invivo_image::pe::PeImage;
use invivo_image::{LiveAddr, Rva};
use serde::Serialize;

use super::{Loaded, loaded_at, refuse_loaded};
use crate::hpat::Host;
use crate::{ApplyError, Stop, TargetError};

/// What becomes of a place of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HookChange {
    /// It leads to the patch, and led nowhere else before.
    Redirected,
    /// It leads to the patch, and led to an earlier one.
    RedirectedAnew,
    /// It led to an earlier patch, and is its own again.
    Restored,
}

/// A place of the base that would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedHook {
    /// Its address.
    pub at: LiveAddr,
    /// The same in the base.
    pub rva: Rva,
    /// The name by which the base exports what begins there, if it does.
    pub name: Option<String>,
    /// How it is changed.
    pub form: &'static str,
    /// What becomes of it.
    pub change: HookChange,
    /// Where in the patch it leads; `None` where it leads to none, or to an address that only the
    /// place tells to which the loader brings the patch.
    pub to: Option<Rva>,
}

/// What would be done.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The base's file.
    pub base: String,
    /// Places of it that would change.
    pub hooks: Vec<PlannedHook>,
    /// Bytes of memory that the process would get.
    pub memory: u64,
    /// Why all threads would stop, now and when the patch is taken back.
    pub stops: Vec<Stop>,
    /// Libraries that the loader would have to find for the patch, as the process has not got them.
    pub libraries: Vec<String>,
    /// What is known only when something was changed: when the loader has brought the patch to its place, or
    /// memory was given back.
    pub open: Option<String>,
    /// What does not stand in the way, and should be known.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// The name by which the image exports what begins at `at`.
    pub(crate) fn exported(&self, at: Rva) -> Option<String> {
        let mut exports = self.image.exports.iter();
        let found = exports.find(|export| export.at == Some(at))?;
        found.names.first().cloned()
    }
}

/// Where a record says that a patch is: its address, its file, and its identity.
pub(crate) type Kept<'r> = (u64, &'r str, (u32, u32));

/// Refuses a patch that the process has loaded already, as `apply` does. Before that, `apply` gives back
/// what is left of modules that are gone or were loaded again: the patches that `stale` tells of. Whether
/// somebody still needs one of them only a process tells in which all threads stand; where the patch is
/// such a one, that is what is open.
pub(crate) fn loaded_still<'r>(
    host: &dyn Host,
    path: &str,
    stale: impl Iterator<Item = Kept<'r>>,
) -> Result<Option<&'static str>, ApplyError> {
    let mut images = host.images()?;
    let mut open = None;
    for (at, kept, identity) in stale {
        let at = loaded_at(host, (at, kept), identity)?;
        images.retain(|image| {
            let is_it = Some(image.range.start) == at;
            if is_it && image.path.eq_ignore_ascii_case(path) {
                open = Some(
                    "whether the copy of the patch can be given back that is loaded for a module which is \
                     gone or was loaded again: if a thread or a place still has an address in it, copy the \
                     patch to another name and apply that",
                );
            }
            !is_it
        });
    }
    refuse_loaded(&images, path)?;
    Ok(open)
}

/// True for a name that is no library's: the loader knows which one has what a set of functions
/// (`api-ms-win-core-file-l1-1-0.dll`) stands for.
fn is_set(library: &str) -> bool {
    let sets = ["api-ms-", "ext-ms-"];
    let start = |set: &&str| library.get(..set.len());
    sets.iter()
        .any(|set| start(set).is_some_and(|start| start.eq_ignore_ascii_case(set)))
}

/// Libraries that an image imports from when it is loaded, and that a process has not got.
pub(crate) fn missing(host: &dyn Host, image: &PeImage) -> Result<Vec<String>, TargetError> {
    let images = host.images()?;
    let is_there = |library: &str| {
        let mut names = images
            .iter()
            .filter_map(|image| image.path.rsplit(['\\', '/']).next());
        names.any(|name| name.eq_ignore_ascii_case(library))
    };
    let imports = image.imports.iter().filter(|library| !library.delayed);
    let missing = imports.filter(|library| !is_set(&library.name) && !is_there(&library.name));
    Ok(missing.map(|library| library.name.clone()).collect())
}
