//! A program that is another image than those of all other scenarios, for commands that reach every process of one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::compile::Build;
use crate::invivo::{self, invivo};
use crate::pair::Pair;
use crate::run::Ran;

/// A pair and its patch, with a mark in image and name that nobody else has.
#[derive(Debug)]
pub struct Marked {
    /// The programs.
    pub pair: Pair,
    /// The patch.
    pub patch: PathBuf,
    /// Its name.
    pub name: String,
}

/// Builds a marked pair of the fixture `source` and its patch.
///
/// # Errors
///
/// When it does not compile, or the tool refuses.
pub fn marked(dir: &Path, source: &str, more: &[&str]) -> Result<Marked> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("mark_{}_{number}", std::process::id());
    // Not in memory, but it makes another build id.
    let mark = dir.join("mark.h");
    let text =
        format!(".pushsection .mark,\\\"\\\",@progbits\\n.ascii \\\"{name}\\\"\\n.popsection");
    std::fs::write(&mark, format!("__asm__(\"{text}\");\n"))?;
    let mark = mark.display().to_string();
    let flags = [&["-include", &mark][..], more].concat();
    let build = Build {
        flags: &flags,
        ..Build::default()
    };
    let pair = Pair::build(dir, source, build)?;
    let patch = dir.join("marked.patch");
    invivo::build(&pair.base, &pair.fixed, &patch, &["--name", &name])?;
    Ok(Marked { pair, patch, name })
}

impl Marked {
    /// Runs `invivo apply --all`.
    ///
    /// # Errors
    ///
    /// As [`invivo()`].
    pub fn apply_all(&self, more: &[&str]) -> Result<Ran> {
        let patch = self.patch.display().to_string();
        invivo(&[&["apply", &patch, "--all", "--json"][..], more].concat())
    }

    /// Runs `invivo revert --all`.
    ///
    /// # Errors
    ///
    /// As [`invivo()`].
    pub fn revert_all(&self) -> Result<Ran> {
        invivo(&["revert", &self.name, "--all", "--json"])
    }
}
