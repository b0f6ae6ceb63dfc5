//! Running compilers and linkers, and folders for what they make.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

/// Runs a build tool, which must succeed; what it prints.
///
/// # Errors
/// When it is missing or fails, with its own words.
pub fn run(command: &mut Command) -> Result<String> {
    let line = format!("{command:?}").replace('"', "");
    let output = command
        .output()
        .with_context(|| format!("{line}\n\nhint: cargo xtask test installs what is missing"))?;
    ensure!(
        output.status.success(),
        "{line}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where `cargo xtask test` puts tools that Debian does not have.
#[must_use]
pub fn tools() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root.join(target).join("tools")
}

/// A folder that is removed with its contents when nobody needs it any more, unless
/// the test fails.
#[derive(Debug)]
pub struct Workdir(PathBuf);

impl Workdir {
    /// Makes a fresh one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Workdir> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "invivo-inputs-{}-{number}-{name}",
            std::process::id()
        ));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Workdir(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
