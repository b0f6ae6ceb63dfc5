//! A case on disk: the program or library is exchanged for its final image, and back. It
//! holds for every case, also for those of which no process can be patched.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Answer, Case, cut};
use crate::claims::Claims;
use crate::invivo::Invivo;
use crate::process;

/// Cases whose images are exchanged in both forms: a program and a shared library.
const KEPT: [&str; 2] = ["redis-31228", "expat-45490"];
const COPY: Duration = Duration::from_secs(120);

/// Exchanges the image in a copy of the programs in `base`, and takes it back; what starts
/// from the copy is asked each time.
pub(super) fn tell(
    case: &dyn Case,
    (base, fixed): (&Path, &Path),
    run: &Path,
    invivo: &Invivo,
    claims: &mut Claims,
) -> Result<()> {
    form(case, (base, fixed), run, invivo, claims, false)?;
    // The base itself with the fixed functions behind it, for a program and a library.
    if KEPT.contains(&case.name()) {
        form(case, (base, fixed), run, invivo, claims, true)?;
    }
    Ok(())
}

/// The same with an image of one form.
fn form(
    case: &dyn Case,
    (base, fixed): (&Path, &Path),
    run: &Path,
    invivo: &Invivo,
    claims: &mut Claims,
    keep_layout: bool,
) -> Result<()> {
    let (programs, image) = (run.join("disk"), run.join("final"));
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(base).arg(&programs);
    ensure!(
        process::succeeds(&mut copy, COPY)?,
        "cannot copy {}",
        base.display()
    );
    let name = case.image();
    invivo.make_final(
        &base.join(name),
        &fixed.join(name),
        &image,
        (case.name(), case.label()),
        keep_layout,
    )?;
    let how = if keep_layout {
        ", with its layout kept,"
    } else {
        ""
    };
    let file = programs.join(name);
    let before = std::fs::read(&file)?;
    invivo.exchange(&["install".as_ref(), image.as_ref(), file.as_ref()])?;
    let (answer, seen) = ask(case, &programs, run)?;
    claims.add(
        format!("what starts after {name} was exchanged{how} on disk has the fix: {seen}"),
        answer == Answer::New,
    );
    invivo.exchange(&["uninstall".as_ref(), file.as_ref()])?;
    claims.add(
        format!("the old {name} comes back byte for byte"),
        std::fs::read(&file)? == before,
    );
    if KEPT.contains(&case.name()) && !keep_layout {
        cut::tell(invivo, &image, &file, name, claims)?;
    }
    let (answer, seen) = ask(case, &programs, run)?;
    claims.add(
        format!("what starts then is as it was: {seen}"),
        answer == Answer::Old,
    );
    std::fs::remove_dir_all(&programs)?;
    Ok(())
}

fn ask(case: &dyn Case, programs: &Path, run: &Path) -> Result<(Answer, String)> {
    let server = case.start(programs, run)?;
    case.probe(server.port)
}
