//! A file that is exchanged by a tool which may be killed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::invivo::invivo;
use crate::killed::killed_before_call;

/// Bits of a mode that set user and group.
const SETS_IDS: u32 = 0o6000;

/// What lies beside a file under a name that is made of its own.
fn hidden(file: &Path) -> Result<Vec<PathBuf>> {
    let (folder, name) = (file.parent(), file.file_name());
    let start = format!(".{}.invivo-", name.unwrap_or_default().display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.context("a file without a folder")?)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().display().to_string();
        found.extend(name.starts_with(&start).then_some(path));
    }
    Ok(found)
}

/// Installs `image` at `file` and takes it back, with both commands killed before each of their system calls: the name
/// leads to the whole old file or to the whole new one, with the mode that it has had, and the command given again ends as
/// if nothing had been. Whatever bits it has that set user and group, no file that is hidden keeps them.
///
/// # Errors
///
/// When one of this does not hold.
pub fn killed_at_every_system_call_of(image: &Path, file: &Path) -> Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    let (old, new) = (fs::read(file)?, fs::read(image)?);
    let entries = || Ok::<_, anyhow::Error>(fs::read_dir(folder)?.count());
    let clean = entries()?;
    let [image, path] = [image, file].map(|path| path.display().to_string());
    let install = ["install", &image, &path];
    let uninstall = ["uninstall", &path];
    let run = |command: &[&str]| invivo(command)?.expect_code(0).map(|_| ());
    let mode = |file: &Path| Ok::<_, anyhow::Error>(file.metadata()?.mode() & 0o7777);
    let rights = mode(file)?;
    for installs in [true, false] {
        for step in 0.. {
            let killed = if installs {
                killed_before_call(&install, step)?
            } else {
                run(&install)?;
                killed_before_call(&uninstall, step)?
            };
            let now = fs::read(file)?;
            ensure!(
                now == old || now == new,
                "neither old nor new before call {step}"
            );
            let before = || format!("before call {step}");
            ensure!(mode(file)? == rights, "another mode before call {step}");
            run(&install).with_context(before)?;
            for hidden in hidden(file)? {
                let left = mode(&hidden)? & SETS_IDS;
                ensure!(
                    left == 0,
                    "{}: {left:o} after call {step}",
                    hidden.display()
                );
            }
            run(&uninstall).with_context(before)?;
            ensure!(fs::read(file)? == old, "not the old file after call {step}");
            ensure!(mode(file)? == rights, "another mode after call {step}");
            ensure!(
                entries()? == clean,
                "something is left over after call {step}"
            );
            if !killed {
                println!("killed before each of {step} system calls");
                ensure!(step > 50, "only {step} system calls: they are not counted");
                break;
            }
        }
    }
    Ok(())
}
