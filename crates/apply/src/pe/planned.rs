//! What making a patch of a Windows image live would do, told before anything is done.

use invivo_image::pe::PeImage;
use invivo_image::{LiveAddr, Rva};
use serde::Serialize;

use super::Loaded;
use crate::hpat::Host;
use crate::{Stop, TargetError};

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
    /// What is known only when the loader has brought the patch to its place.
    pub open: Option<&'static str>,
}

impl Loaded {
    /// The name by which the image exports what begins at `at`.
    pub(crate) fn exported(&self, at: Rva) -> Option<String> {
        let mut exports = self.image.exports.iter();
        let found = exports.find(|export| export.at == Some(at))?;
        found.names.first().cloned()
    }
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
    let missing = imports.filter(|library| !is_there(&library.name));
    Ok(missing.map(|library| library.name.clone()).collect())
}
