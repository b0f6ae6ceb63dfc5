//! A folder for each scenario: removed after success, kept after failure.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Runs `body` with a fresh folder for it.
///
/// # Errors
///
/// Those of `body`; the folder is kept then, and its name is printed.
pub fn in_workdir(name: &str, body: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = env::temp_dir().join(format!("invivo-live-{}-{number}-{name}", process::id()));
    fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    // Some scenarios run the tool as another user, who must be able to read the files.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let mut kept = Kept { path, failed: true };
    body(&kept.path)?;
    kept.failed = false;
    Ok(())
}

// A guard, so that a panic inside the body keeps the folder as an error does.
struct Kept {
    path: PathBuf,
    failed: bool,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.failed {
            eprintln!("kept for a look: {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
