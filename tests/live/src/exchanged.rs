//! A file that is exchanged by a tool which may be killed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::invivo::invivo;
use crate::killed::killed_before_call;

/// Installs `image` at `file` and takes it back, with both commands killed before each of their system calls: the name
/// leads to the whole old file or to the whole new one, and the command given again ends as if nothing had been.
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
            if now == old {
                run(&install).with_context(before)?;
            }
            run(&uninstall).with_context(before)?;
            ensure!(fs::read(file)? == old, "not the old file after call {step}");
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
