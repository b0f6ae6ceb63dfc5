//! What stands in the target's own memory about patches of older Windows: the next run of the tool
//! knows from it what was done, and undoes what a run that died left in the middle.

use invivo_format::hotp1::HookKind;
use invivo_image::LiveAddr;
use serde::{Deserialize, Serialize};

use super::Listed;
use super::hooks::Descriptor;
use crate::hpat::WordRecord;
use crate::{ApplyError, Loaded, Target};

/// Is told what is about to change in the target, while nothing of it has.
pub(super) type Witness<'w> =
    dyn FnMut(&mut dyn Target, &[WordRecord]) -> Result<(), ApplyError> + 'w;

/// A place of the target that a patch changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyHookRecord {
    /// Its address.
    pub at: u64,
    /// `HookType`.
    pub kind: u16,
    /// What is there while the patch is active.
    pub code: Vec<u8>,
    /// What was there before.
    pub original: Vec<u8>,
    /// True if only other hooks lead there.
    pub beside: bool,
    /// True if a call may return into the original.
    pub calls: bool,
}

/// A patch module in the target's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyPatchRecord {
    /// Its file, as the target knows it.
    pub path: String,
    /// Its `TimeDateStamp`.
    pub time_stamp: u32,
    /// Its `CheckSum`.
    pub checksum: u32,
    /// Where it is.
    pub at: u64,
    /// See [`COLD_PATCH_VALID`](super::COLD_PATCH_VALID).
    pub flags: u32,
    /// True while its hooks are in the target.
    pub active: bool,
    /// True once its own words were fixed up; one whose are not has never been active.
    pub fixed: bool,
    /// Its hooks, in the order in which they were written.
    pub hooks: Vec<LegacyHookRecord>,
}

/// A module and the patches that hang on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyRecord {
    /// What wrote it, such as `invivo 0.1.0`.
    pub applied_by: String,
    /// The module's file, as the target knows it.
    pub path: String,
    /// Its `TimeDateStamp`.
    pub time_stamp: u32,
    /// Its `CheckSum`.
    pub checksum: u32,
    /// Where it is.
    pub at: u64,
    /// The patches that were applied, also those that were removed, in that order.
    pub patches: Vec<LegacyPatchRecord>,
    /// What was about to change, in one step, when this was written.
    pub words: Vec<WordRecord>,
}

impl LegacyRecord {
    /// True if no place is empty or at the end of all addresses: the record was made by somebody
    /// who knew the form.
    pub(super) fn is_sound(&self) -> bool {
        let fits = |at: u64, size: usize| size > 0 && at.checked_add(size as u64).is_some();
        let hooks = self.patches.iter().flat_map(|patch| &patch.hooks);
        hooks
            .into_iter()
            .all(|hook| fits(hook.at, hook.code.len()) && hook.code.len() == hook.original.len())
            && self
                .words
                .iter()
                .all(|word| fits(word.at, word.new.len()) && word.new.len() == word.old.len())
    }
}

impl Descriptor {
    pub(super) fn record(&self) -> LegacyHookRecord {
        LegacyHookRecord {
            at: self.at.0,
            kind: self.kind.code(),
            code: self.code.clone(),
            original: self.original.clone(),
            beside: self.beside,
            calls: self.calls,
        }
    }
}

impl From<&LegacyHookRecord> for Descriptor {
    fn from(record: &LegacyHookRecord) -> Descriptor {
        Descriptor {
            at: LiveAddr(record.at),
            kind: HookKind::of(record.kind),
            code: record.code.clone(),
            original: record.original.clone(),
            beside: record.beside,
            calls: record.calls,
        }
    }
}

impl LegacyPatchRecord {
    /// The same in the list of a module.
    pub(super) fn listed(&self, patch: Loaded) -> Listed {
        Listed {
            patch,
            flags: self.flags,
            active: self.active,
            hooks: self.hooks.iter().map(Descriptor::from).collect(),
        }
    }
}

fn word(at: LiveAddr, old: &[u8], new: &[u8]) -> WordRecord {
    WordRecord {
        at: at.0,
        old: old.to_vec(),
        new: new.to_vec(),
    }
}

/// What hooks are about to change.
pub(super) fn installing(hooks: &[Descriptor]) -> Vec<WordRecord> {
    let hooks = hooks.iter();
    hooks
        .map(|hook| word(hook.at, &hook.original, &hook.code))
        .collect()
}

/// What their removal is about to change.
pub(super) fn removing(hooks: &[Descriptor]) -> Vec<WordRecord> {
    let hooks = hooks.iter().rev();
    hooks
        .map(|hook| word(hook.at, &hook.code, &hook.original))
        .collect()
}
