//! `--save-repro`: a folder with all that is needed to see again what a run did.
//!
//! For a report of a mistake: the files that the command line names, what the processes that it
//! names had mapped, the words, and how it ended. No memory of a process is saved, and no key.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, USAGE};

/// Options whose value is a secret, or what is about to be written.
const LEFT_OUT: [&str; 4] = ["--key", "--output", "-o", "--save-repro"];
/// What is saved of a process.
const OF_PROCESS: [&str; 3] = ["maps", "status", "exe"];

/// `repro.json`.
#[derive(Debug, Serialize)]
struct Repro {
    schema: &'static str,
    version: &'static str,
    /// The command line.
    words: Vec<String>,
    /// Where it was run.
    folder: String,
    kernel: String,
    files: Vec<Saved>,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Saved {
    /// The word that names it, or the file of a process.
    named: String,
    /// What it is called in the folder.
    saved_as: String,
    sha256: String,
}

/// A run that is being saved.
#[derive(Debug)]
pub(crate) struct Saving {
    folder: PathBuf,
    repro: Repro,
}

impl Saving {
    /// Saves what there is before the run, which may change it.
    ///
    /// # Errors
    /// When the folder is there already or cannot be written.
    pub(crate) fn begin(folder: &Path, words: &[OsString]) -> Result<Saving, Failure> {
        let fail = |error: std::io::Error| {
            Failure::new(USAGE, format!("{}: {error}", folder.display()))
                .hint("give --save-repro a folder that is not there yet, where one may be made")
        };
        fs::create_dir(folder).map_err(fail)?;
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let own = std::env::current_dir().unwrap_or_default();
        let mut saving = Saving {
            folder: folder.to_owned(),
            repro: Repro {
                schema: "invivo.repro/1",
                version: env!("CARGO_PKG_VERSION"),
                words: words
                    .iter()
                    .map(|word| word.to_string_lossy().into_owned())
                    .collect(),
                folder: own.display().to_string(),
                kernel: text("/proc/version").trim_end().to_owned(),
                files: Vec::new(),
                exit_code: 0,
                error: None,
            },
        };
        saving.files().map_err(fail)?;
        Ok(saving)
    }

    fn files(&mut self) -> std::io::Result<()> {
        let words = self.repro.words.clone();
        let mut before = "";
        for word in words.iter().skip(1) {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, value),
                _ => (before, word.as_str()),
            };
            before = word;
            if LEFT_OUT.contains(&option) {
                continue;
            }
            let number = word.strip_prefix("-p").filter(|number| !number.is_empty());
            let is_process = matches!(option, "-p" | "--pid");
            if let Some(pid) = number.or(is_process.then_some(value))
                && pid.parse::<i32>().is_ok()
            {
                for part in OF_PROCESS {
                    let path = format!("/proc/{pid}/{part}");
                    self.keep(&path, &format!("process-{pid}.{part}"))?;
                }
                continue;
            }
            if Path::new(value).is_file() {
                let name = Path::new(value).file_name().unwrap_or_default();
                let name = format!("{}-{}", self.repro.files.len(), name.to_string_lossy());
                self.keep(value, &name)?;
            }
        }
        Ok(())
    }

    /// Copies one file; what may not be read, or is gone, is left out.
    fn keep(&mut self, path: &str, name: &str) -> std::io::Result<()> {
        let Ok(bytes) = fs::read(path) else {
            return Ok(());
        };
        fs::write(self.folder.join(name), &bytes)?;
        self.repro.files.push(Saved {
            named: path.to_owned(),
            saved_as: name.to_owned(),
            sha256: invivo_patch::Hex(Sha256::digest(&bytes).to_vec()).to_string(),
        });
        Ok(())
    }

    /// Saves how it ended; what to say of where all of it is.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn end(mut self, result: &Result<u8, Failure>) -> Result<String, Failure> {
        match result {
            Ok(code) => self.repro.exit_code = *code,
            Err(failure) => {
                self.repro.exit_code = failure.code;
                self.repro.error = Some(failure.text.clone());
            }
        }
        let fail = |text: String| Failure::new(USAGE, format!("{}: {text}", self.folder.display()));
        let json = serde_json::to_string_pretty(&self.repro).map_err(|e| fail(e.to_string()))?;
        fs::write(self.folder.join("repro.json"), json).map_err(|e| fail(e.to_string()))?;
        Ok(format!(
            "saved for a report: {}; look through it before you pass it on",
            self.folder.display()
        ))
    }
}
