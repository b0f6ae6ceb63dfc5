//! Building the three programs of a case.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use live_tests::run::run;

use crate::case::Case;

const LIMIT: Duration = Duration::from_secs(120);

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// As it runs.
    Base,
    /// With the change.
    Fixed,
    /// With the near miss.
    Near,
}

/// Builds one version of a case below `folder` and returns the program.
///
/// # Errors
/// When the compiler is missing or does not like the source.
pub fn build(case: &Case, version: Version, folder: &Path) -> Result<PathBuf> {
    let (place, define) = match version {
        Version::Base => ("base", None),
        Version::Fixed => ("fixed", Some("FIXED")),
        Version::Near => ("near", Some("NEAR")),
    };
    let place = folder.join(place);
    std::fs::create_dir(&place)?;
    // The paths of both builds are part of them, so they are the same.
    let source = place.join(case.source.file_name().context("a case without a name")?);
    let lines = match version {
        Version::Base => 0,
        Version::Fixed => case.fixed.lines,
        Version::Near => case.near.lines,
    };
    let text = std::fs::read_to_string(&case.source)?;
    let parts = parts(&("\n".repeat(lines) + &text));
    for (part, text) in &parts {
        let part = part
            .as_ref()
            .map_or_else(|| source.clone(), |part| place.join(part));
        std::fs::create_dir_all(part.parent().context("a file without a folder")?)?;
        std::fs::write(&part, text)?;
    }
    let name = source.file_name().unwrap_or_default();
    let ending = source.extension().and_then(OsStr::to_str);
    let is_changed = version == Version::Fixed;
    let folder = case.change_folder.as_deref().filter(|_| is_changed);
    let folder = folder.unwrap_or(".");
    let other = case.change_compiler.as_deref().filter(|_| is_changed);
    let other = other.or(case.compiler.as_deref());
    let mut command = match ending {
        Some("c") => Command::new(other.unwrap_or("gcc")),
        Some("cc") => Command::new(other.unwrap_or("g++")),
        Some("rs") => Command::new("rustc"),
        _ => bail!("{} is in no language that is built here", source.display()),
    };
    command
        .current_dir(&place)
        .arg(name)
        .args(parts.iter().filter_map(|(part, _)| part.as_ref()))
        .args(["-o", "program"]);
    if ending == Some("rs") {
        command.args([
            "-g",
            "-O",
            "--edition",
            "2024",
            "-C",
            "link-arg=-Wl,--build-id",
        ]);
        command.args([
            "--remap-path-prefix",
            &format!("{}={folder}", place.display()),
        ]);
        if let Some(define) = define {
            command.args(["--cfg", &define.to_lowercase()]);
        }
        command.args(["--check-cfg", "cfg(fixed, near)"]);
    } else {
        command.args(["-O2", "-g", "-Wl,--build-id"]);
        command.arg(format!("-fdebug-prefix-map={}={folder}", place.display()));
        if let Some(define) = define {
            command.arg(format!("-D{define}"));
        }
    }
    command.args(&case.flags);
    let [as_it_runs, changed, near] = &case.own_flags;
    command.args(match version {
        Version::Base => as_it_runs,
        Version::Fixed => changed,
        Version::Near => near,
    });
    let ran = run(command, LIMIT)?;
    ensure!(ran.code == Some(0), "{}", ran.told());
    Ok(place.join("program"))
}

/// The files that a source is cut into, the first one without a name; each line has the number
/// that it has in the whole.
fn parts(text: &str) -> Vec<(Option<String>, String)> {
    let mut parts = vec![(None, String::new())];
    for (before, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix("//# part ") {
            parts.push((Some(name.trim().to_owned()), "\n".repeat(before)));
        }
        if let Some((_, text)) = parts.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    parts
}
