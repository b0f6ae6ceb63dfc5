//! Two builds of a small program, and the report about them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A folder of one test below the target folder, emptied; what it holds is kept for a look.
///
/// # Errors
/// When it cannot be made.
pub fn folder(name: &str) -> Result<PathBuf> {
    let folder = target()?.join("report").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Compiles `source` without and with `-DFIXED`, lets `invivo` compare the two, and returns the report and the exit code.
///
/// # Errors
/// When the compiler refuses, or no report is written.
pub fn report(folder: &Path, source: &str) -> Result<(PathBuf, Option<i32>)> {
    report_with(folder, source, &[])
}

/// The same with more options of `invivo diff`.
///
/// # Errors
/// As [`report`].
pub fn report_with(
    folder: &Path,
    source: &str,
    options: &[&str],
) -> Result<(PathBuf, Option<i32>)> {
    std::fs::write(folder.join("program.c"), source)?;
    for (version, define) in [("base", "-UFIXED"), ("fixed", "-DFIXED")] {
        let mut compiler = Command::new("cc");
        compiler.current_dir(folder).args([
            "-O2",
            "-g",
            "-Wl,--build-id",
            define,
            "program.c",
            "-o",
            version,
        ]);
        succeed(&mut compiler)?;
    }
    let report = folder.join("report.html");
    let output = Command::new(invivo()?)
        .current_dir(folder)
        .args(["diff", "base", "fixed", "--html", "report.html"])
        .args(options)
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(report.is_file(), "no report: {told}");
    Ok((report, output.status.code()))
}

/// The program that the variable INVIVO names, else the workspace's own, built here.
fn invivo() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("INVIVO") {
        return Ok(PathBuf::from(named).canonicalize()?);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args([
            "build",
            "--quiet",
            "--package",
            "invivo-cli",
            "--target-dir",
        ])
        .arg(target()?)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    succeed(&mut build)?;
    Ok(target()?.join("debug/invivo"))
}

/// Cargo's target folder: the test itself lies in TARGET/PROFILE/deps.
fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("the test lies nowhere")?;
    Ok(target.to_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} does not start"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {told}");
    Ok(())
}
