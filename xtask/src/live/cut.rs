//! A tool that is killed while it exchanges a file: before each system call of it that may change
//! what a disk holds.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::claims::Claims;
use crate::invivo::Invivo;
use crate::process;

/// The calls that change names or open files, lock, or wait for the disk. The calls between them only
/// read, so that a kill there leaves what a kill before the next of these does.
const CALLS: [&str; 15] = [
    "openat",
    "flock",
    "unlinkat",
    "write",
    "pwrite64",
    "ftruncate",
    "fchmod",
    "fchown",
    "fsetxattr",
    "fremovexattr",
    "fsync",
    "linkat",
    "renameat",
    "renameat2",
    "close",
];

/// More than either command makes of one kind.
const MOST: usize = 200;
const LIMIT: Duration = Duration::from_secs(60);

/// Exchanges `image` and `file`, whose name is `name`, and takes it back, with both commands killed
/// before each of these calls.
pub(super) fn tell(
    invivo: &Invivo,
    image: &Path,
    file: &Path,
    name: &str,
    claims: &mut Claims,
) -> Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    let (old, new) = (std::fs::read(file)?, std::fs::read(image)?);
    let entries = || Ok::<_, anyhow::Error>(std::fs::read_dir(folder)?.count());
    let clean = entries()?;
    let install: [&OsStr; 3] = ["install".as_ref(), image.as_ref(), file.as_ref()];
    let uninstall: [&OsStr; 2] = ["uninstall".as_ref(), file.as_ref()];
    let (mut wrong, mut told) = (0, Vec::new());
    for installs in [true, false] {
        let (mut steps, mut kinds) = (0, Vec::new());
        for call in CALLS {
            for step in 1.. {
                ensure!(step < MOST, "{MOST} times {call}: they are not counted");
                if !installs {
                    invivo.exchange(&install)?;
                }
                let words = if installs { &install[..] } else { &uninstall };
                let killed = killed_before(invivo, words, call, step)?;
                let now = std::fs::read(file)?;
                wrong += usize::from(now != old && now != new);
                // The same again ends as if nothing had been.
                if now != new {
                    invivo.exchange(&install)?;
                    wrong += usize::from(std::fs::read(file)? != new);
                }
                invivo.exchange(&uninstall)?;
                wrong += usize::from(std::fs::read(file)? != old || entries()? != clean);
                if !killed {
                    break;
                }
                steps += 1;
                kinds.push(call);
            }
        }
        let needed = match installs {
            true => &["openat", "write", "fchmod", "fsync", "renameat2"][..],
            false => &["openat", "renameat", "fsync"],
        };
        wrong += needed.iter().filter(|call| !kinds.contains(call)).count();
        told.push(steps);
    }
    let text = format!(
        "killed before each of {} calls of install and {} of uninstall, {name} is the old file or \
         the new one, whole",
        told[0], told[1]
    );
    claims.add(text, wrong == 0);
    Ok(())
}

/// False if the command ended before its call `call` of that number, counted from 1.
fn killed_before(invivo: &Invivo, words: &[&OsStr], call: &str, step: usize) -> Result<bool> {
    let mut command = Command::new("strace");
    command
        .args(["-qq", "-o", "/dev/null", "-e"])
        .arg(format!("inject={call}:signal=KILL:when={step}"))
        .arg(invivo.program())
        .args(words);
    let ran = process::capture(&mut command, LIMIT)?;
    // It ends as what it traces did.
    let killed = ran.status.code().is_none();
    ensure!(
        killed || ran.status.success(),
        "{words:?} ended with {}: {}",
        ran.status,
        ran.stderr
    );
    Ok(killed)
}
