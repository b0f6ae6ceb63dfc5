//! A module of a process with what stands in its memory: each change is written there before it is
//! made.

use std::sync::Arc;

use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::host::{Done, blocks};
use super::record::{LegacyPatchRecord, LegacyRecord};
use super::{Outcome, PatchedModule, switch};
use crate::hpat::{Host, HostImage, WordRecord};
use crate::pe::Ledger;
use crate::{ApplyError, Loaded, Stopped, Target, refused};

const MAGIC: [u8; 8] = *b"invivoH1";

/// Bytes of a page; the block begins with one that says what it is.
const PAGE: u64 = 0x1000;

/// Bytes that each of the two places for a record has.
const PLACE: u64 = 0x8_0000;

/// The record in the memory that begins at `at`; `None` where it is no such block.
pub(super) fn open_block(
    target: &dyn Target,
    at: LiveAddr,
) -> Result<Option<(Ledger, LegacyRecord)>, ApplyError> {
    let mut magic = [0; 8];
    if target.read(at, &mut magic).is_err() || magic != MAGIC {
        return Ok(None);
    }
    let found = Ledger::open(target, LiveAddr(at.0 + PAGE), PLACE);
    let found: Option<(Ledger, LegacyRecord)> = found;
    match found {
        Some((_, record)) if !record.is_sound() => {
            refused(format!("the record at {at} contradicts itself"))
        }
        found => Ok(found),
    }
}

/// A module of a process with what stands in its memory.
pub(super) struct Lasting<'h> {
    host: &'h mut dyn Host,
    block: LiveAddr,
    ledger: Ledger,
    record: LegacyRecord,
    state: PatchedModule,
    pub(super) settled: bool,
}

impl<'h> Lasting<'h> {
    /// `image` is the file that the module was loaded from.
    pub(super) fn open(
        host: &'h mut dyn Host,
        module: &HostImage,
        image: PeImage,
        applied_by: &str,
    ) -> Result<Lasting<'h>, ApplyError> {
        let at = module.range.start;
        let known = blocks(host)?.into_iter().find(|(.., one)| one.at == at.0);
        let (block, ledger, mut record) = match known {
            Some(known) => known,
            None => {
                // Not near: what is there is left to the patches.
                let block = host.reserve(None, PAGE + 2 * PLACE)?;
                if let Err(error) = host.write(block, &MAGIC) {
                    // Nothing is in it that anybody needs.
                    let _ = host.release(block);
                    return Err(error.into());
                }
                let record = LegacyRecord {
                    path: module.path.clone(),
                    time_stamp: image.time_stamp,
                    checksum: image.checksum,
                    at: at.0,
                    ..LegacyRecord::default()
                };
                (block, Ledger::new(LiveAddr(block.0 + PAGE), PLACE), record)
            }
        };
        applied_by.clone_into(&mut record.applied_by);
        let target = Loaded {
            image: Arc::new(image),
            at,
            reserve: 0,
            table: None,
        };
        let mut lasting = Lasting {
            host,
            block,
            ledger,
            record,
            state: PatchedModule::new(target),
            settled: false,
        };
        lasting.settle()?;
        Ok(lasting)
    }

    /// Undoes what a tool that died left in the middle, and takes over the rest.
    fn settle(&mut self) -> Result<(), ApplyError> {
        let words = std::mem::take(&mut self.record.words);
        let undone = self.undo(&words);
        if undone.is_err() {
            self.record.words = words;
            return undone;
        }
        let all = std::mem::take(&mut self.record.patches);
        let (fixed, open): (Vec<_>, Vec<_>) = all.into_iter().partition(|patch| patch.fixed);
        self.settled = !words.is_empty() || !open.is_empty();
        for patch in open {
            // Nothing of the module ever led there.
            self.host.unload(LiveAddr(patch.at))?;
        }
        let mut list = Vec::new();
        for patch in &fixed {
            list.push(patch.listed(loaded(self.host, patch)?));
        }
        self.state = PatchedModule::with_list(self.state.target().clone(), list);
        self.record.patches = fixed;
        if self.settled {
            self.ledger.write(self.host, &self.record)?;
        }
        Ok(())
    }

    /// Puts back what a switch had written that did not end: all of it, part of it or nothing.
    fn undo(&mut self, words: &[WordRecord]) -> Result<(), ApplyError> {
        let mut back = Vec::new();
        for word in words.iter().rev() {
            let at = LiveAddr(word.at);
            let mut now = vec![0; word.old.len()];
            self.host.read(at, &mut now)?;
            if !word.may_be(&now) {
                return refused(format!("somebody changed {at}, which belongs to a patch"));
            }
            if now != word.old {
                back.push((at, now, word.old.clone()));
            }
        }
        switch::put_back(self.host, &back)
    }

    /// Files of the patches whose hooks are in the module, in the order in which they came.
    pub(super) fn active(&self) -> Vec<String> {
        let patches = self.record.patches.iter().filter(|patch| patch.active);
        patches.map(|patch| patch.path.clone()).collect()
    }

    pub(super) fn nothing(&self) -> Done {
        Done {
            target: self.record.path.clone(),
            patch: String::new(),
            outcome: Outcome::default(),
            active: self.active().len(),
            settled: self.settled,
            unloaded: Vec::new(),
        }
    }

    pub(super) fn apply(&mut self, path: &str, image: PeImage) -> Result<Done, ApplyError> {
        let identity = (image.time_stamp, image.checksum);
        let mut known = self.record.patches.iter();
        let known = known.find(|one| (one.time_stamp, one.checksum) == identity);
        let (patch, is_new) = match known {
            Some(known) => (loaded(self.host, known)?, false),
            None => (self.load(path, image)?, true),
        };
        let (ledger, record) = (&mut self.ledger, &self.record);
        let applied = self
            .state
            .apply_before(self.host, &patch, &mut |target, words| {
                let mut next = record.clone();
                next.patches.iter_mut().for_each(|one| one.fixed = true);
                next.words = words.to_vec();
                ledger.write(target, &next)
            });
        if let Err(error) = &applied {
            let open = matches!(error, ApplyError::Inconsistent(_));
            if open {
                // What is to be undone stands in the record.
                return applied.map(|_| self.nothing());
            }
            if is_new && let Some(new) = self.record.patches.pop() {
                self.host.unload(LiveAddr(new.at))?;
            }
        }
        self.note()?;
        Ok(Done {
            patch: path.to_owned(),
            outcome: applied?,
            ..self.nothing()
        })
    }

    /// Lets the process load a patch, as it loads any library.
    fn load(&mut self, path: &str, image: PeImage) -> Result<Loaded, ApplyError> {
        let at = self.host.load_whole(path)?;
        self.record.patches.push(LegacyPatchRecord {
            path: path.to_owned(),
            time_stamp: image.time_stamp,
            checksum: image.checksum,
            at: at.0,
            flags: 0,
            active: false,
            fixed: false,
            hooks: Vec::new(),
        });
        if let Err(error) = self.ledger.write(self.host, &self.record) {
            self.record.patches.pop();
            self.host.unload(at)?;
            return Err(error);
        }
        Ok(Loaded {
            image: Arc::new(image),
            at,
            reserve: 0,
            table: None,
        })
    }

    /// Removes the active patch whose file is `path`.
    pub(super) fn remove(&mut self, path: &str) -> Result<Done, ApplyError> {
        let mut patches = self.record.patches.iter();
        let Some(patch) = patches.find(|patch| patch.active && patch.path == path) else {
            return refused(format!("{path} is not active"));
        };
        let at = LiveAddr(patch.at);
        let (ledger, record) = (&mut self.ledger, &self.record);
        let removed = self
            .state
            .remove_before(self.host, at, &mut |target, words| {
                let mut next = record.clone();
                next.words = words.to_vec();
                ledger.write(target, &next)
            });
        if let Err(ApplyError::Inconsistent(_)) = removed {
            return removed.map(|_| self.nothing());
        }
        self.note()?;
        Ok(Done {
            patch: path.to_owned(),
            outcome: removed?,
            ..self.nothing()
        })
    }

    /// Gives the memory of patches back that are not active and that nobody needs.
    pub(super) fn unload(
        &mut self,
        is_meant: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(String, Option<String>)>, ApplyError> {
        let mut told = Vec::new();
        for patch in self.record.patches.clone() {
            if !is_meant(&patch.path) {
                continue;
            }
            let why = if patch.active {
                Some("its hooks are in the module".to_owned())
            } else {
                self.needed(&patch)?
            };
            if why.is_none() {
                // First, so that nobody applies a patch again that may be gone.
                self.record.patches.retain(|one| one.at != patch.at);
                self.ledger.write(self.host, &self.record)?;
                self.state.list.retain(|one| one.patch.at.0 != patch.at);
                self.host.unload(LiveAddr(patch.at))?;
            }
            told.push((patch.path, why));
        }
        Ok(told)
    }

    /// A place that holds an address in a patch.
    fn needed(&mut self, patch: &LegacyPatchRecord) -> Result<Option<String>, ApplyError> {
        let patch = loaded(self.host, patch)?;
        let range = patch.at..patch.end();
        let mut found = None;
        self.host.stop(&[], &mut |stopped: &mut dyn Stopped| {
            found = stopped.finds(&range)?;
            Ok(())
        })?;
        Ok(found)
    }

    /// Writes down what is there now.
    fn note(&mut self) -> Result<(), ApplyError> {
        let old = std::mem::take(&mut self.record.patches);
        for listed in self.state.list() {
            let known = old.iter().find(|one| one.at == listed.patch.at.0);
            self.record
                .patches
                .extend(known.map(|known| LegacyPatchRecord {
                    flags: listed.flags,
                    active: listed.active,
                    fixed: true,
                    hooks: listed.hooks.iter().map(|hook| hook.record()).collect(),
                    ..known.clone()
                }));
        }
        self.record.words = Vec::new();
        self.ledger.write(self.host, &self.record)
    }

    /// Gives the block back where nothing is left that it tells of.
    pub(super) fn leave_if_unused(self) {
        if self.record.patches.is_empty() && self.record.words.is_empty() {
            // What is left of it is memory that nobody uses.
            let _ = self.host.release(self.block);
        }
    }
}

/// A patch of a record, if it still is what it was.
fn loaded(host: &dyn Host, patch: &LegacyPatchRecord) -> Result<Loaded, ApplyError> {
    let file = host.file(&patch.path)?;
    let known = (patch.time_stamp, patch.checksum);
    Loaded::recorded(&patch.path, file, known, patch.at)
}
