//! `invivo.exe install` and `uninstall` that are killed before each call that concerns files: the name leads to
//! the old file or to the new one, never to a mixture, and the next command does what is left.

mod installed;

use std::fs;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use installed::{Files, NEW, OLD};
use live_tests::workdir::in_workdir;
use windows_tests::asked::Asked;
use windows_tests::asker;
use windows_tests::wine::{self, Wine};

/// Where nobody has the file mapped its name always leads to one of both.
#[test]
fn a_file_that_nobody_has() -> Result<()> {
    killed("install-killed", false)
}

/// Where a process has it mapped the name leads nowhere between two steps.
#[test]
fn a_file_that_a_process_has() -> Result<()> {
    killed("install-killed-mapped", true)
}

fn killed(test: &str, mapped: bool) -> Result<()> {
    in_workdir(test, |dir| {
        let files = Files::new(dir)?;
        let program = asker(dir)?;
        let dies = wine::example("dies_exchanging")?;
        for (verb, other) in [("install", "uninstall"), ("uninstall", "install")] {
            let (mut deaths, mut nowhere) = (0, 0);
            for step in 0.. {
                let when = format!("{verb} at {step}");
                let is_new = fs::read(&files.base)? == files.new;
                if is_new == (verb == "install") {
                    files.done(other)?;
                }
                let answer = if verb == "install" { OLD } else { NEW };
                let mut running = match mapped {
                    true => Some(Asked::start(&program, &files.base)?),
                    false => None,
                };
                let ended = die(&dies, step, &files, verb)?;
                nowhere += u32::from(leads_nowhere(&files, &when)?);
                ensure!(mapped || nowhere == 0, "{when}: the name leads nowhere");
                if let Some(running) = &mut running {
                    ensure!(running.ask("answer 5")?.0 == answer, "{when}: what runs");
                }
                if ended {
                    ensure!(step > 3, "{verb} has more steps");
                    break;
                }
                deaths += 1;
                // The same again, or back; either makes up for who died.
                next(&files, if step % 2 == 0 { verb } else { other }, &when)?;
            }
            println!("{verb}: {deaths} deaths, {nowhere} with a name that led nowhere");
        }
        for verb in ["install", "uninstall"] {
            next(&files, verb, "in the end")?;
        }
        ensure!(files.hidden()?.is_empty(), "{:?}", files.hidden()?);
        Ok(())
    })
}

/// Runs a tool that dies before its call number `step`; true where it has fewer.
fn die(tool: &Path, step: u32, files: &Files, verb: &str) -> Result<bool> {
    let wine = Wine::ready()?;
    let mut words = vec![step.to_string()];
    words.extend(files.words(verb));
    let (text, code) = wine.output(wine.command(tool).args(words))?;
    match code {
        0 => Ok(true),
        3 => Ok(false),
        code => bail!("{verb} at {step} ends with {code}: {text}"),
    }
}

/// True where the name leads nowhere; what it leads to is whole.
fn leads_nowhere(files: &Files, when: &str) -> Result<bool> {
    let found = match fs::read(&files.base) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        found => found?,
    };
    ensure!(
        found == files.old || found == files.new,
        "{when}: a mixture"
    );
    Ok(false)
}

/// What comes after a tool that died: it does what is left, and what it is asked for.
fn next(files: &Files, verb: &str, when: &str) -> Result<()> {
    let (text, code) = files.run(&files.words(verb))?;
    // Where the old file is there nothing is to be taken back.
    let most = i32::from(verb == "uninstall");
    ensure!(code <= most, "{when}, then {verb} ends with {code}: {text}");
    let wanted = match verb {
        "install" => &files.new,
        _ => &files.old,
    };
    ensure!(
        fs::read(&files.base)? == *wanted,
        "{when}, then {verb}: {text}"
    );
    Ok(())
}
