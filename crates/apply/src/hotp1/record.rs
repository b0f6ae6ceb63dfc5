//! What stands in the target's own memory about patches of older Windows: the next run of the tool
//! knows from it what was done, and undoes what a run that died left in the middle.

use std::ops::Range;

use invivo_format::hotp1::HookKind;
use invivo_image::LiveAddr;
use serde::{Deserialize, Serialize};

use super::Listed;
use super::hooks::Descriptor;
use crate::hpat::{HostImage, WordRecord};
use crate::pe::Instance;
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
    /// Where it is; 0 while the process may be loading it.
    pub at: u64,
    /// See [`COLD_PATCH_VALID`](super::COLD_PATCH_VALID).
    pub flags: u32,
    /// True while its hooks are in the target.
    pub active: bool,
    /// True once its own words may have been fixed up; one that is not is on its way in or out, and
    /// nobody is inside.
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
    /// Pages of it that could be written and executed before any tool came.
    #[serde(default)]
    pub open: Vec<u64>,
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

impl LegacyRecord {
    /// What the record knows its module by.
    pub(super) fn identity(&self) -> (u32, u32) {
        (self.time_stamp, self.checksum)
    }

    /// Whether the module that is loaded now is still the one that the record tells of.
    pub(crate) fn instance(
        &self,
        target: &dyn Target,
        images: &[HostImage],
    ) -> Result<Instance, ApplyError> {
        let mut live: Vec<(LiveAddr, &[u8])> = Vec::new();
        let active = self.patches.iter().filter(|patch| patch.active);
        for hook in active.flat_map(|patch| &patch.hooks) {
            let meets = |at: u64, size: usize| {
                let (end, own) = (at.saturating_add(size as u64), hook.code.len() as u64);
                at < hook.at.saturating_add(own) && hook.at < end
            };
            // What lies over another hook replaced that one's code, and what was about to change tells
            // nothing.
            let over = live.iter().any(|(at, old)| meets(at.0, old.len()));
            let changing = self.words.iter().any(|word| meets(word.at, word.new.len()));
            if !over && !changing && hook.code != hook.original {
                live.push((LiveAddr(hook.at), &hook.original));
            }
        }
        Instance::of(target, images, self.at, self.identity(), &live)
    }

    /// The record as it is for whoever asks what is patched: of a module that was unloaded, or loaded
    /// again, nothing is.
    pub(super) fn now(mut self, instance: Instance) -> LegacyRecord {
        if instance != Instance::Same {
            let patches = self.patches.iter_mut();
            patches.for_each(|patch| patch.active = false);
            self.words.clear();
        }
        self
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

/// Where words are.
pub(super) fn places(words: &[WordRecord]) -> Vec<Range<LiveAddr>> {
    let end = |word: &WordRecord| word.at.saturating_add(word.new.len() as u64);
    let words = words.iter();
    words
        .map(|word| LiveAddr(word.at)..LiveAddr(end(word)))
        .collect()
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
