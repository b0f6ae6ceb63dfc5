//! A module of a process with what stands in its memory: each change is written there before it is
//! made.

use std::sync::Arc;

use invivo_image::LiveAddr;
use invivo_image::pe::PeImage;

use super::host::Done;
use super::leaving::{leave, needed};
use super::record::{LegacyPatchRecord, LegacyRecord, places};
use super::{Outcome, PatchedModule};
use crate::hpat::Host;
use crate::pe::{Ledger, open_in, open_pages, refuse_loaded};
use crate::{ApplyError, Loaded, TargetError, refused};

/// A module of a process with what stands in its memory.
pub(super) struct Lasting<'h> {
    pub(super) host: &'h mut dyn Host,
    pub(super) block: LiveAddr,
    pub(super) ledger: Ledger,
    pub(super) record: LegacyRecord,
    pub(super) state: PatchedModule,
    pub(super) settled: bool,
}

impl Lasting<'_> {
    pub(super) fn leave(&mut self, patch: &LegacyPatchRecord) -> Result<(), ApplyError> {
        leave(self.host, &mut self.ledger, &mut self.record, patch)
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
        let known = known.and_then(|known| known.seen(self.host));
        let (patch, is_new) = match known {
            Some(known) => {
                let image = Arc::new(image);
                (Loaded { image, ..known }, false)
            }
            None => (self.load(path, image)?, true),
        };
        let (ledger, record) = (&mut self.ledger, &mut self.record);
        let applied = self
            .state
            .apply_before(self.host, &patch, &mut |target, words| {
                record.open = open_pages(target, &places(words))?;
                record
                    .open
                    .extend(open_in(target, &(patch.at..patch.end()))?);
                let mut next = record.clone();
                next.patches.iter_mut().for_each(|one| one.fixed = true);
                next.words = words.to_vec();
                ledger.write(target, &next)
            });
        if let Err(ApplyError::Inconsistent(_)) = applied {
            // What is to be undone stands in the record.
            return applied.map(|_| self.nothing());
        }
        let mut news = self.record.patches.iter();
        let new = news.find(|one| is_new && one.at == patch.at.0);
        let new = new.filter(|_| applied.is_err()).cloned();
        self.note(new.as_ref())?;
        if let Some(new) = new {
            self.leave(&new)?;
        }
        Ok(Done {
            patch: path.to_owned(),
            outcome: applied?,
            ..self.nothing()
        })
    }

    /// Lets the process load a patch, as it loads any library.
    fn load(&mut self, path: &str, image: PeImage) -> Result<Loaded, ApplyError> {
        let before = self.host.images()?;
        refuse_loaded(&before, path)?;
        let mut new = LegacyPatchRecord {
            path: path.to_owned(),
            time_stamp: image.time_stamp,
            checksum: image.checksum,
            at: 0,
            flags: 0,
            active: false,
            fixed: false,
            hooks: Vec::new(),
        };
        self.record.patches.push(new.clone());
        self.ledger.write(self.host, &self.record)?;
        let at = match self.host.load_whole(path) {
            Ok(at) => at,
            // What comes late is found by its name.
            Err(error @ TargetError::Unfinished(_)) => return Err(error.into()),
            Err(error) => {
                self.leave(&new)?;
                return Err(error.into());
            }
        };
        if before.iter().any(|image| image.range.start == at) {
            // By another name; it was not loaded for us.
            self.host.unload(at)?;
            self.record.patches.pop();
            self.ledger.write(self.host, &self.record)?;
            return refused(format!(
                "the process has {path} loaded already, at {at}; copy it and apply the copy"
            ));
        }
        new.at = at.0;
        self.record.patches.pop();
        self.record.patches.push(new.clone());
        if let Err(error) = self.ledger.write(self.host, &self.record) {
            self.leave(&new)?;
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
        self.note(None)?;
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
                needed(self.host, &patch)?
            };
            if why.is_none() {
                // First, so that nobody applies a patch again that may be gone.
                let own = self.record.patches.iter_mut();
                own.filter(|one| one.at == patch.at)
                    .for_each(|one| one.fixed = false);
                self.ledger.write(self.host, &self.record)?;
                self.state.list.retain(|one| one.patch.at.0 != patch.at);
                self.leave(&patch)?;
            }
            told.push((patch.path, why));
        }
        Ok(told)
    }

    /// Writes down what is there now, and a patch that is on its way out.
    fn note(&mut self, leaving: Option<&LegacyPatchRecord>) -> Result<(), ApplyError> {
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
        self.record.patches.extend(leaving.cloned());
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
