//! Whether the disk has room for what the chores build.
//!
//! A linker that finds no room dies of a bus error, and a test that finds none
//! fails for a reason of its own: nothing in either names the disk. So it is
//! asked first.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

const GIB: u64 = 1 << 30;

/// What all tests leave below `target`, from a cold start, and what they need
/// beside it for a while, in bytes.
const TESTS: u64 = 14 * GIB;

/// Fails if the disk has no room for what the tests build.
pub(crate) fn for_tests(workspace: &Workspace) -> Result<()> {
    fs::create_dir_all(&workspace.target)
        .with_context(|| format!("cannot create {}", workspace.target.display()))?;
    let disk = rustix::fs::statvfs(&workspace.target)
        .with_context(|| format!("cannot ask the disk of {}", workspace.target.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = TESTS.saturating_sub(used(&workspace.target));
    if free < needed {
        bail!(
            "the tests need {} MiB more below {}, and the disk has {} MiB free: make room, or name another \
             folder with CARGO_TARGET_DIR",
            needed >> 20,
            workspace.target.display(),
            free >> 20
        );
    }
    Ok(())
}

/// Bytes of the disk that a folder takes. What vanishes meanwhile takes none.
fn used(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => used(&entry.path()),
        Ok(found) => found.blocks().saturating_mul(512),
        Err(_) => 0,
    });
    sizes.fold(0, u64::saturating_add)
}
