//! The names of a file and of what waits beside it, and what a tool that died there left.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use invivo_format::final_image;
use invivo_patch::Hex;

use super::{ExchangeError, exists, failed, manifest, rename, sha256};
use crate::process::Turn;

/// Milliseconds to wait for another tool at the same file.
const PATIENCE: u32 = 10_000;

/// What the name of a file has that waits: behind it the number of the run.
const ASIDE: &str = ".invivo.";

/// The names of a file, of its old one and of the new one while they wait.
pub(super) struct Place {
    pub(super) path: PathBuf,
    folder: PathBuf,
    name: String,
}

impl Place {
    pub(super) fn new(path: &Path) -> Result<Place, ExchangeError> {
        let path = std::path::absolute(path).map_err(failed("find", path))?;
        let parts = (
            path.parent(),
            path.file_name().and_then(|name| name.to_str()),
        );
        let (Some(folder), Some(name)) = parts else {
            return Err(failed("find", &path)(io::ErrorKind::InvalidFilename.into()));
        };
        Ok(Place {
            folder: folder.to_owned(),
            name: name.to_owned(),
            path,
        })
    }

    pub(super) fn base(&self, sha256: &Hex) -> PathBuf {
        self.folder.join(final_image::base_name(&self.name, sha256))
    }

    /// Where a file waits that gets the name, or had it: a place where nothing is. The number of the run
    /// alone is none: Windows gives numbers again, and what an earlier run left there may still be mapped.
    pub(super) fn aside(&self) -> PathBuf {
        let (name, run) = (&self.name, std::process::id());
        let place = |number: u32| {
            let more = match number {
                0 => String::new(),
                number => format!("-{number}"),
            };
            self.folder.join(format!(".{name}{ASIDE}{run}{more}"))
        };
        let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
        let mut all = (0..=u32::MAX).map(place);
        all.find(is_free).unwrap_or_else(|| place(0))
    }

    /// Frees the place where the old file is to be kept. A tool died that had only given the old file its
    /// second name, nobody needs what is there, or a process still runs it since a package put the same
    /// build in the place of what was installed. What is mapped cannot be removed, and can get another name,
    /// by which the next command takes it away.
    pub(super) fn clear(&self, kept: &Path) -> Result<(), ExchangeError> {
        let in_the_way = |source| ExchangeError::InTheWay {
            path: self.path.clone(),
            kept: kept.to_owned(),
            source,
        };
        if fs::remove_file(kept).is_ok() {
            return Ok(());
        }
        fs::rename(kept, self.aside()).map_err(in_the_way)
    }

    /// What begins with `.NAME` and `mark` beside the file.
    fn beside(&self, mark: &str) -> Result<Vec<PathBuf>, ExchangeError> {
        let (start, mut found) = (format!(".{}{mark}", self.name), Vec::new());
        for entry in fs::read_dir(&self.folder).map_err(failed("read", &self.folder))? {
            let entry = entry.map_err(failed("read", &self.folder))?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(&start)) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Makes up for a tool that died: the name leads to the old file again where it led nowhere, and
    /// what else waits is gone, as far as no process has it mapped.
    pub(super) fn settle(&self) -> Result<(), ExchangeError> {
        let waiting = self.beside(ASIDE)?;
        if !exists(&self.path)? {
            let kept = self.beside(final_image::BASE_MARK)?;
            match self.left(&waiting, &kept) {
                // Whatever died, the old one is right.
                Some(old) => rename(&old, &self.path)?,
                None if kept.is_empty() => {}
                // Nothing is deleted of which the name may be in need.
                None => {
                    return Err(ExchangeError::Nowhere {
                        path: self.path.clone(),
                        kept,
                    });
                }
            }
        }
        for left in waiting {
            // One that is mapped stays, and the next one tries it again.
            let _ = fs::remove_file(left);
        }
        Ok(())
    }

    /// Which of the old files that are `kept` lost the name to a tool that died. There may be others:
    /// whoever brings a new build of a file that was patched leaves the old one's there. What waits
    /// tells: it was to get the name, or had it, and says what it was made of; the last one that
    /// was written, if there are several.
    fn left(&self, waiting: &[PathBuf], kept: &[PathBuf]) -> Option<PathBuf> {
        let written = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
        let mut waiting: Vec<&PathBuf> = waiting.iter().collect();
        waiting.sort_by_key(|path| std::cmp::Reverse(written(path)));
        let told = waiting.into_iter().find_map(|path| {
            let found = manifest(path, &fs::read(path).ok()?).ok()?;
            let old = self.base(&found.base.sha256);
            let is_it = sha256(&fs::read(&old).ok()?) == found.base.sha256;
            is_it.then_some(old)
        });
        let only = |kept: &[PathBuf]| match kept {
            [only] => Some(only.clone()),
            _ => None,
        };
        told.or_else(|| only(kept))
    }

    /// `from` gets the name, and what has it is at `to` then.
    pub(super) fn exchange(&self, from: &Path, to: &Path) -> Result<(), ExchangeError> {
        // Who may write it can replace it: nobody has it mapped.
        let free = OpenOptions::new().write(true).open(&self.path).is_ok();
        if free && fs::hard_link(&self.path, to).is_ok() {
            if fs::rename(from, &self.path).is_ok() {
                return Ok(());
            }
            fs::remove_file(to).map_err(failed("remove", to))?;
        }
        // Somebody has it mapped, or the file system knows no second names. Whoever dies after the
        // first of these is made up for by `settle`.
        rename(&self.path, to)?;
        rename(from, &self.path).inspect_err(|_| {
            // What cannot be put back here is by the next one.
            let _ = fs::rename(to, &self.path);
        })
    }

    /// Waits until no other tool is at work with the file.
    pub(super) fn turn(&self) -> Result<Turn, ExchangeError> {
        let name = self.path.to_string_lossy().to_lowercase();
        let name = format!("invivo-file-{}", sha256(name.as_bytes()));
        let path = || self.path.clone();
        let turn = Turn::take(&name, PATIENCE).map_err(|error| ExchangeError::Turn {
            path: path(),
            error,
        })?;
        turn.ok_or_else(|| ExchangeError::Busy(path()))
    }
}
