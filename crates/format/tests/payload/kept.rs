//! What tests write is kept, so that all of it goes through a real loader at last: `tests/xen/src/bin/loader.rs`
//! sends it. It is kept in the folder `payloads` of Cargo's target folder if that is there, which
//! `cargo xtask test` makes anew.

#![allow(
    unreachable_pub,
    reason = "a library of tests has it as a public module"
)]

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use invivo_format::livepatch::{self, LivepatchError, Payload, Written};

/// What is kept is called `PACKAGE.TEST-HASH`; the same bytes of one test are kept once.
///
/// # Panics
///
/// If they cannot be kept.
pub fn keep(file: &[u8]) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (folder, program) = place();
    if !folder.is_dir() {
        return;
    }
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    let hash = hasher.finish();
    let kept = folder.join(format!("{}.{program}-{hash:016x}", env!("CARGO_PKG_NAME")));
    if kept.exists() {
        return;
    }
    // Nobody finds half of one.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let half = folder.join(format!(".{}-{count}", std::process::id()));
    let done = fs::write(&half, file).and_then(|()| fs::rename(&half, &kept));
    done.unwrap_or_else(|error| unreachable!("{}: {error}", kept.display()));
}

/// Writes a payload, and keeps it.
///
/// # Errors
///
/// What the writer refuses.
#[allow(dead_code, reason = "of some tests the program writes")]
#[expect(clippy::disallowed_methods, reason = "it is kept")]
pub fn write(payload: &Payload) -> Result<Written, LivepatchError> {
    let written = livepatch::write(payload)?;
    keep(&written.file);
    Ok(written)
}

/// The folder, and the name of the test, which runs as `target/PROFILE/deps/TEST-NUMBER`.
fn place() -> (PathBuf, String) {
    let test = std::env::current_exe().unwrap_or_default();
    let target = test.ancestors().nth(3).unwrap_or(Path::new(""));
    let name = test.file_stem().unwrap_or_default().to_string_lossy();
    let (program, _) = name.rsplit_once('-').unwrap_or((&name, ""));
    (target.join("payloads"), program.to_owned())
}
