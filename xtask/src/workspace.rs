//! Where things are: the sources, what was built, what may be thrown away.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

/// No build of one program takes longer, even on a slow machine.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// The folders that the chores work in.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// The corpus: sources, and one folder for each case.
    pub(crate) corpus: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in a folder of the workspace")?
            .to_owned();
        let folder = |variable: &str, default: &str| match std::env::var_os(variable) {
            Some(chosen) => root.join(chosen),
            None => root.join(default),
        };
        let target = folder("CARGO_TARGET_DIR", "target");
        let corpus = folder("CORPUS_WORK", "target/corpus");
        Ok(Self {
            root,
            target,
            corpus,
        })
    }

    /// A `cargo` command in the workspace, of the toolchain that runs us.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        // What a chore builds is built once: parts kept for the next change cost a fifth of the
        // time and gigabytes.
        command.env("CARGO_INCREMENTAL", "0");
        command
    }

    /// The command of a program of the workspace that other chores run.
    ///
    /// It is built as the tests are, and with the features that all packages choose together: for
    /// its package alone others would be chosen, and most would be built anew.
    pub(crate) fn built(&self, program: &str) -> Result<Command> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--quiet", "--workspace", "--bin", program]);
        if !process::succeeds(&mut cargo, BUILD_LIMIT)? {
            bail!("{program} does not build");
        }
        Ok(Command::new(self.target.join("debug").join(program)))
    }

    /// Where the live scenarios keep the programs that they compiled.
    pub(crate) fn live_programs(&self) -> PathBuf {
        self.target.join("live-programs")
    }

    /// The folder of one run, emptied.
    pub(crate) fn fresh_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.target.join(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)?,
            _ => (),
        }
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// The release build of the program `invivo`, or the one that `INVIVO` names.
    pub(crate) fn invivo(&self) -> PathBuf {
        match std::env::var_os("INVIVO") {
            Some(chosen) => self.root.join(chosen),
            None => self.target.join("release/invivo"),
        }
    }
}
