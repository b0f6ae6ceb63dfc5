//! What stands in the target's own memory about its hot patches: the next run of the tool knows
//! from it what was done, and undoes what a run that died left in the middle.

use std::ops::Range;

use invivo_image::LiveAddr;
use serde::{Deserialize, Serialize};

use super::live::ways;
use super::preflight::Plan;
use super::{Entry, Host, HostImage, PatchedImage};
use crate::pe::{Instance, Word};
use crate::{ApplyError, Loaded, Target, refused};

/// Is told what is about to be done, while nothing of it is done.
pub type Witness<'w> = dyn FnMut(&mut dyn Target, &Intent) -> Result<(), ApplyError> + 'w;

/// A function of a base that leads, or led, through the address table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// Where it is in the base.
    pub at: u32,
    /// Its place in the address table.
    pub index: u32,
    /// What it leads to.
    pub to: u64,
    /// The five bytes before it and its first two, as they were.
    pub original: [u8; 7],
    /// True if calls of it go there now.
    pub live: bool,
}

/// A word that one store changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordRecord {
    /// Its address.
    pub at: u64,
    /// What is there before the store.
    pub old: Vec<u8>,
    /// What is there after it.
    pub new: Vec<u8>,
}

impl WordRecord {
    /// True if `now` is what is there before, after, or in the middle of the change: a tool may have
    /// died while it wrote.
    pub(crate) fn may_be(&self, now: &[u8]) -> bool {
        let mut each = now.iter().zip(self.old.iter().zip(&self.new));
        each.all(|(now, (old, new))| now == old || now == new)
    }
}

impl From<&Word> for WordRecord {
    fn from(word: &Word) -> WordRecord {
        WordRecord {
            at: word.at.0,
            old: word.old.clone(),
            new: word.new.clone(),
        }
    }
}

/// What is about to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// The base's entries as they are, and those that are new; none of these is live yet.
    pub entries: Vec<EntryRecord>,
    /// What becomes live, in order; none before all that it needs is in place.
    pub words: Vec<WordRecord>,
}

/// A patch that was led to a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchRecord {
    /// The file that it was loaded from, as the target knows it.
    pub path: String,
    /// Its `TimeDateStamp`.
    pub time_stamp: u32,
    /// Its `CheckSum`.
    pub checksum: u32,
    /// Where it is; 0 while the process may be loading it.
    pub at: u64,
    /// Where its own address table is; 0 where it has none.
    pub table: u64,
    /// Its sequence number.
    pub sequence: u32,
    /// True once all of it leads to the base. One that is not led is on its way in or out, and
    /// nobody is inside.
    pub led: bool,
}

/// A base and what was done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotPatchRecord {
    /// What wrote it, such as `invivo 0.1.0`.
    pub applied_by: String,
    /// The base's file, as the target knows it.
    pub path: String,
    /// Its `TimeDateStamp`.
    pub time_stamp: u32,
    /// Its `CheckSum`.
    pub checksum: u32,
    /// Where it is.
    pub at: u64,
    /// Where its address table is.
    pub table: u64,
    /// Bytes of the table.
    pub reserve: u64,
    /// The sequence number of the live patch; 0 where none is.
    pub sequence: u32,
    /// Patches that are in memory.
    pub patches: Vec<PatchRecord>,
    /// Entries of the base.
    pub entries: Vec<EntryRecord>,
    /// What was about to become live when this was written.
    pub words: Vec<WordRecord>,
    /// Pages that could be written and executed before any tool came.
    #[serde(default)]
    pub open: Vec<u64>,
}

impl PatchedImage {
    /// Its entries as a record holds them.
    #[must_use]
    pub fn entries(&self) -> Vec<EntryRecord> {
        let entries = self.entries.iter();
        entries.map(|(at, entry)| entry.record(*at)).collect()
    }

    /// What a plan is about to do, but for the words.
    pub(super) fn intent(&self, plan: &Plan) -> Intent {
        let mut entries = self.entries();
        for (at, entry) in &plan.entries {
            if !self.entries.contains_key(at) {
                let mut record = entry.record(*at);
                record.live = false;
                entries.push(record);
            }
        }
        Intent {
            entries,
            words: Vec::new(),
        }
    }
}

impl HotPatchRecord {
    /// Places that a tool may have been about to write, as far as they are in the base or its table.
    pub(super) fn places(&self, base: &Loaded) -> Vec<Range<LiveAddr>> {
        let words = self.words.iter();
        let mut places: Vec<_> = words
            .map(|word| LiveAddr(word.at)..LiveAddr(word.at.saturating_add(word.new.len() as u64)))
            .collect();
        for entry in self.entries.iter().filter(|entry| !entry.live) {
            if let Ok(function) = base.address(entry.at) {
                places.extend(ways(base, function, entry.index));
            }
        }
        places
    }

    /// What the record knows its base by.
    pub(super) fn identity(&self) -> (u32, u32) {
        (self.time_stamp, self.checksum)
    }

    /// The patches to which functions may lead, by what is in memory: those that are `led`.
    ///
    /// # Errors
    /// When one is not where it was, though the base leads to a patch.
    pub(super) fn led(&self, host: &dyn Host) -> Result<Vec<Loaded>, ApplyError> {
        let mut led = Vec::new();
        for patch in self.patches.iter().filter(|patch| patch.led) {
            match patch.seen(host) {
                Some(patch) => led.push(patch),
                None if self.sequence == 0 => {}
                None => {
                    return refused(format!(
                        "{}, to which functions may lead, is not at {:#x} any more",
                        patch.path, patch.at
                    ));
                }
            }
        }
        Ok(led)
    }

    /// Whether the base that is loaded now is still the one that the record tells of.
    pub(super) fn instance(
        &self,
        target: &dyn Target,
        images: &[HostImage],
    ) -> Result<Instance, ApplyError> {
        let live = self.entries.iter().filter(|entry| entry.live);
        let live: Vec<_> = live
            .filter_map(|entry| {
                let before = self.at.checked_add(entry.at.into())?.checked_sub(5)?;
                Some((LiveAddr(before), &entry.original[..]))
            })
            .collect();
        Instance::of(target, images, self.at, self.identity(), &live)
    }
}

impl Entry {
    fn record(&self, at: u32) -> EntryRecord {
        EntryRecord {
            at,
            index: self.index,
            to: self.to,
            original: self.original,
            live: self.live,
        }
    }
}

impl From<&EntryRecord> for Entry {
    fn from(record: &EntryRecord) -> Entry {
        Entry {
            index: record.index,
            to: record.to,
            original: record.original,
            live: record.live,
        }
    }
}
