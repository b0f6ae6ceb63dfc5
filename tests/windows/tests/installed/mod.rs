//! A library that is patched on disk by `invivo.exe`, and what lies beside it.
#![allow(dead_code, reason = "each program of tests uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use live_tests::invivo::invivo;
use windows_tests::wine::{self, Wine, name};
use windows_tests::{Build, build};

pub(crate) const OLD: i32 = 28;
pub(crate) const NEW: i32 = 1028;

/// `invivo.exe`, the library, and the file that it is exchanged for.
pub(crate) struct Files {
    pub(crate) tool: PathBuf,
    pub(crate) base: PathBuf,
    /// Another build of it.
    pub(crate) fixed: PathBuf,
    pub(crate) cold: PathBuf,
    /// The same fix for what runs.
    pub(crate) hot: PathBuf,
    /// The next fix of the same base, and what runs gets of it.
    pub(crate) second: PathBuf,
    pub(crate) next: PathBuf,
    pub(crate) old: Vec<u8>,
    pub(crate) new: Vec<u8>,
}

impl Files {
    pub(crate) fn new(dir: &Path) -> Result<Files> {
        let imports = |how: Build| how.importing(&["GetTickCount"]).with("-DIMPORTS").roomy();
        let base = build(dir, "base", "service", &imports(Build::base()))?.path;
        let fixed = build(dir, "fixed", "service", &imports(Build::fixed("answer")))?.path;
        let cold = dir.join("service.cold");
        let [b, f, c] = [&base, &fixed, &cold].map(|path| path.display().to_string());
        invivo(&["build", &b, &f, "-o", &c, "--format", "cold"])?.expect_code(0)?;
        let hot = dir.join("fix.dll");
        let h = hot.display().to_string();
        invivo(&["build", &b, &f, "-o", &h, "--format", "hotp1"])?.expect_code(0)?;
        let more = imports(Build::fixed("answer,halve").with("-DSECOND"));
        let second = build(dir, "second", "service", &more)?.path;
        let next = dir.join("next.dll");
        let [s, n] = [&second, &next].map(|path| path.display().to_string());
        invivo(&["build", &b, &s, "-o", &n, "--format", "hotp1"])?.expect_code(0)?;
        Ok(Files {
            tool: wine::invivo()?,
            old: fs::read(&base)?,
            new: fs::read(&cold)?,
            base,
            fixed,
            cold,
            hot,
            second,
            next,
        })
    }

    pub(crate) fn words(&self, verb: &str) -> Vec<String> {
        let base = name(&self.base);
        match verb {
            "install" => vec![verb.to_owned(), name(&self.cold), base],
            _ => vec![verb.to_owned(), base],
        }
    }

    pub(crate) fn run(&self, words: &[String]) -> Result<(String, i32)> {
        let wine = Wine::ready()?;
        wine.output(wine.command(&self.tool).args(words))
    }

    pub(crate) fn done(&self, verb: &str) -> Result<String> {
        let (text, code) = self.run(&self.words(verb))?;
        ensure!(code == 0, "{verb}: {text}");
        Ok(text)
    }

    /// How the processes stand that have this very file as their library, and the disk.
    pub(crate) fn standing(&self) -> Result<Vec<String>> {
        self.standing_of(&self.hot)
    }

    /// The same for a patch module.
    pub(crate) fn standing_of(&self, patch: &Path) -> Result<Vec<String>> {
        let (text, code) = self.run(&["status".to_owned(), name(patch)])?;
        ensure!(code == 0, "{text}");
        let own = format!(": {}: running: ", name(&self.base));
        let all = text.lines().filter_map(|line| line.split_once(&own));
        let mut all: Vec<String> = all.map(|(_, state)| state.to_owned()).collect();
        all.sort();
        Ok(all)
    }

    pub(crate) fn expect(&self, wanted: &[u8]) -> Result<()> {
        ensure!(fs::read(&self.base)? == wanted, "it is another file");
        Ok(())
    }

    /// What lies beside the library.
    pub(crate) fn hidden(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.base.parent().expect("a folder"))? {
            let path = entry?.path();
            if path.to_string_lossy().contains("/.service.dll.") {
                found.push(path);
            }
        }
        Ok(found)
    }
}
