//! Each payload for Xen that a test writes goes through a real loader: tests keep what they write, and
//! after them all of it is sent.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// Where tests keep payloads, below Cargo's target folder; without it they keep none.
const FOLDER: &str = "payloads";
const LIMIT: Duration = Duration::from_secs(600);

/// Has tests keep what they write from here on, and forgets what they kept before.
pub(crate) fn collect(workspace: &Workspace) -> Result<()> {
    workspace.fresh_folder(FOLDER).map(|_| ())
}

/// Sends all that was kept to the loader of each hypervisor; `false` where an answer is otherwise than
/// predicted, a test left too few, or one was not sent. Then they are kept for a look.
pub(crate) fn send(workspace: &Workspace) -> Result<bool> {
    println!("\nwhat tests wrote for Xen, sent to real hypervisors");
    let folder = workspace.target.join(FOLDER);
    let mut loader = workspace.built("loader")?;
    let passed = process::succeeds(loader.arg(&folder), LIMIT)?;
    if passed {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(passed)
}
