//! The commands of the program for Windows.

mod each;
mod exchange;
mod legacy;
mod list;
mod outcome;
mod plan;
mod planned;
mod processes;
mod status;

use std::path::Path;
use std::sync::Arc;

use invivo_apply::hpat;
use invivo_format::hotp1;
use invivo_format::hpat::{HotPatch, read};
use invivo_image::pe::PeImage;

use crate::arguments::{Apply, Arguments, Command, Processes, Revert};
use crate::failure::{Failure, REFUSED, USAGE};
use crate::looked::Looked;
use crate::output::Output;
use each::each;
use legacy::State;
use list::seen;
use outcome::done;
use processes::look_at_each;

const WE: &str = concat!("invivo ", env!("CARGO_PKG_VERSION"));

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<u8, Failure> {
    match &arguments.command {
        Command::Apply(apply) => self::apply(apply, output),
        Command::Plan(plan) => plan::plan(plan, output),
        Command::Revert(revert) => self::revert(revert, output),
        Command::Recover(processes) => recover(processes, output),
        Command::Install(install) => exchange::install(install, output),
        Command::Uninstall(uninstall) => exchange::uninstall(uninstall, output),
        Command::List(list) => list::list(list, output),
        Command::Status(status) => status::status(status, output),
    }
}

/// The name by which every process finds a file.
fn whole_path(path: &Path) -> Result<String, Failure> {
    let whole = std::path::absolute(path)
        .map_err(|error| Failure::new(USAGE, format!("{}: {error}", path.display())))?;
    Ok(whole.to_string_lossy().into_owned())
}

fn apply(apply: &Apply, output: &Output) -> Result<u8, Failure> {
    let path = whole_path(&apply.patch)?;
    let older = hotp1::is_legacy(&image(&apply.patch)?);
    let find = || concerned(&apply.patch, &path, older);
    each(&apply.processes, output, &find, &|process, pid, begin| {
        if older {
            return legacy::apply(process, pid, &path, begin);
        }
        let refitted = hpat::apply(process, &path, WE)?;
        Ok(vec![done(pid, "applied", refitted, begin)])
    })
}

/// Processes that a patch is for and that do not run it.
fn concerned(patch: &Path, path: &str, older: bool) -> Result<Looked<u32>, Failure> {
    match older {
        // Who runs the file that has the same fix needs no second copy of it.
        true => legacy::concerned(path, &[State::NotPatched, State::Removed]),
        false => status::modern(&image(patch)?, &metadata(patch)?),
    }
}

fn revert(revert: &Revert, output: &Output) -> Result<u8, Failure> {
    let which = match &revert.patch {
        Some(path) if !hotp1::is_legacy(&image(path)?) => {
            let text = format!("{} is no patch module of older Windows", path.display());
            let hint = "there is one patch of a final image at most; leave the name out";
            return Err(Failure::new(USAGE, text).hint(hint));
        }
        Some(path) => Some(whole_path(path)?),
        None => None,
    };
    let find = || match &which {
        Some(path) if !revert.unload => legacy::concerned(path, &[State::Active]),
        Some(path) => legacy::concerned(path, &[State::Active, State::Removed]),
        None => changed(),
    };
    each(&revert.processes, output, &find, &|process, pid, begin| {
        let which = which.as_deref();
        let mut all = legacy::revert(process, pid, which, revert.unload, begin)?;
        if which.is_none() {
            let modern = hpat::revert(process, revert.unload, WE)?;
            all.extend(
                modern
                    .into_iter()
                    .map(|one| done(pid, "reverted", one, begin)),
            );
        }
        Ok(all)
    })
}

/// Processes in which anything was done that is still there.
fn changed() -> Result<Looked<u32>, Failure> {
    look_at_each(&|pid, _, process| {
        let seen = seen(process)?;
        let has = seen.standing > 0 || !seen.images.is_empty() || !seen.modules.is_empty();
        Ok(has.then_some(pid).into_iter().collect())
    })
}

fn recover(chosen: &Processes, output: &Output) -> Result<u8, Failure> {
    each(chosen, output, &changed, &|process, pid, begin| {
        let mut all = legacy::recover(process, pid, begin)?;
        let modern = hpat::recover(process, WE)?.into_iter();
        all.extend(modern.map(|one| done(pid, "settled", one, begin)));
        Ok(all)
    })
}

fn metadata(path: &Path) -> Result<HotPatch, Failure> {
    let parsed = read(&image(path)?)
        .map_err(|error| Failure::new(REFUSED, format!("{}: {error}", path.display())))?;
    Ok(parsed.patch)
}

fn image(path: &Path) -> Result<PeImage, Failure> {
    let name = path.display();
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(USAGE, format!("cannot read {name}: {error}")))?;
    PeImage::parse(Arc::from(bytes))
        .map_err(|error| Failure::new(USAGE, format!("{name}: {error}")))
}
