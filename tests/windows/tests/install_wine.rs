//! A library that is patched on disk by `invivo.exe`, on Windows' own terms: while a process has it
//! mapped, and while nobody has; a tool that dies at any moment; files that are not expected.

mod installed;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use installed::{Files, NEW, OLD};
use live_tests::workdir::in_workdir;
use windows_tests::asked::Asked;
use windows_tests::asker;
use windows_tests::wine::{Wine, name};

#[test]
fn a_mapped_library_and_one_that_nobody_has() -> Result<()> {
    in_workdir("install-wine", |dir| {
        let files = Files::new(dir)?;
        let program = asker(dir)?;
        // Nobody has it.
        let text = files.done("install")?;
        ensure!(text.contains("what starts next is fixed"), "{text}");
        files.expect(&files.new)?;
        ensure!(files.done("install")?.contains("already"), "nothing to do");
        files.done("uninstall")?;
        files.expect(&files.old)?;
        ensure!(files.hidden()?.is_empty(), "{:?}", files.hidden()?);
        // A process has it, and later another one the new one.
        let mut running = Asked::start(&program, &files.base)?;
        ensure!(running.ask("answer 5")?.0 == OLD);
        ensure!(files.standing()? == ["not patched; on disk: old"]);
        files.done("install")?;
        ensure!(files.standing()? == ["not patched; on disk: fixed"]);
        files.expect(&files.new)?;
        let mut fixed = Asked::start(&program, &files.base)?;
        ensure!(fixed.ask("answer 5")?.0 == NEW && running.ask("answer 5")?.0 == OLD);
        ensure!(
            files.standing()?
                == [
                    "not patched; on disk: fixed",
                    "patched on disk; on disk: fixed"
                ]
        );
        // Neither process has the next fix, and nor has what starts next.
        let other = "not patched; on disk: other (service)";
        ensure!(files.standing_of(&files.next)? == [other; 2]);
        files.done("uninstall")?;
        files.expect(&files.old)?;
        ensure!(fixed.ask("answer 5")?.0 == NEW && running.ask("answer 5")?.0 == OLD);
        // What runs tells that it is fixed, though its file is there no more.
        ensure!(
            files.standing()? == ["not patched; on disk: old", "patched on disk; on disk: old"]
        );
        ensure!(Asked::start(&program, &files.base)?.ask("answer 5")?.0 == OLD);
        drop(fixed);
        // Files that are not expected.
        let (text, code) = files.run(&files.words("uninstall"))?;
        ensure!(code == 1, "{text}");
        let mut other = files.old.clone();
        other[0x60] ^= 1;
        drop(running);
        fs::write(&files.base, &other)?;
        let (text, code) = files.run(&files.words("install"))?;
        ensure!(code == 1 && text.contains("is not the file"), "{text}");
        files.expect(&other)?;
        fs::write(&files.base, &files.old)?;
        let mut damaged = files.new.clone();
        damaged[0x60] ^= 1;
        fs::write(&files.cold, &damaged)?;
        let (text, code) = files.run(&files.words("install"))?;
        ensure!(code == 1 && text.contains("damaged"), "{text}");
        files.expect(&files.old)
    })
}

/// What runs is patched or not, and what has its name now is the old file, the fixed one, another build or
/// none: status tells both.
#[test]
fn what_runs_and_what_is_on_disk() -> Result<()> {
    in_workdir("install-wine-disk", |dir| {
        let files = Files::new(dir)?;
        let mut running = Asked::start(&asker(dir)?, &files.base)?;
        let pid = running.ask("PID 0")?.0.to_string();
        let beside = files.base.with_file_name("beside.dll");
        for (verb, state, answer) in [
            ("", "not patched", OLD),
            ("apply", "patched", NEW),
            ("revert", "removed", OLD),
        ] {
            if !verb.is_empty() {
                let words = [verb, &name(&files.hot), "--pid", &pid].map(str::to_owned);
                let (text, code) = files.run(&words)?;
                ensure!(code == 0, "{verb}: {text}");
            }
            let told = |disk: &str| -> Result<()> {
                let (found, wanted) = (files.standing()?, format!("{state}; on disk: {disk}"));
                ensure!(found == [wanted], "{state}, {disk}: {found:?}");
                Ok(())
            };
            told("old")?;
            files.done("install")?;
            told("fixed")?;
            files.done("uninstall")?;
            told("old")?;
            fs::rename(&files.base, &beside)?;
            told("gone")?;
            // As a package brings it: the next fix, and the very build that this one is made of.
            fs::copy(&files.second, &files.base)?;
            told("other")?;
            fs::copy(&files.fixed, &files.base)?;
            told("fixed")?;
            ensure!(running.ask("answer 5")?.0 == answer, "{state}");
            fs::remove_file(&files.base)?;
            fs::rename(&beside, &files.base)?;
        }
        Ok(())
    })
}

/// Signs a file in its place with a key that nobody trusts.
fn sign(dir: &Path, file: &Path) -> Result<()> {
    let [key, certificate, out] = ["key.pem", "certificate.pem", "signed"].map(|n| dir.join(n));
    let mut made = Command::new("openssl");
    made.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj"]);
    made.args(["/CN=test", "-days", "30", "-keyout"]).arg(&key);
    made.arg("-out").arg(&certificate);
    let mut signed = Command::new("osslsigncode");
    signed
        .args(["sign", "-h", "sha256", "-certs"])
        .arg(&certificate);
    signed.arg("-key").arg(&key).arg("-in").arg(file);
    signed.arg("-out").arg(&out);
    for mut command in [made, signed] {
        let ran = command.output()?;
        ensure!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    fs::rename(out, file)?;
    Ok(())
}

/// A file that was signed after it was patched, before it is installed or there: it is the same fix, in
/// what runs and on disk, and gives way to the old file.
#[test]
fn a_file_that_was_signed_afterwards() -> Result<()> {
    in_workdir("install-wine-signed", |dir| {
        let files = Files::new(dir)?;
        let program = asker(dir)?;
        sign(dir, &files.cold)?;
        let signed = fs::read(&files.cold)?;
        ensure!(signed.len() > files.new.len(), "a certificate is behind it");
        let running = Asked::start(&program, &files.base)?;
        files.done("install")?;
        files.expect(&signed)?;
        ensure!(files.standing()? == ["not patched; on disk: fixed"]);
        let mut fixed = Asked::start(&program, &files.base)?;
        ensure!(fixed.ask("answer 5")?.0 == NEW);
        let both = [
            "not patched; on disk: fixed",
            "patched on disk; on disk: fixed",
        ];
        ensure!(files.standing()? == both, "{:?}", files.standing()?);
        let other = "not patched; on disk: other (service)";
        ensure!(files.standing_of(&files.next)? == [other; 2]);
        files.done("uninstall")?;
        files.expect(&files.old)?;
        drop((running, fixed));
        // Signed where it is.
        fs::write(&files.cold, &files.new)?;
        files.done("install")?;
        sign(dir, &files.base)?;
        let text = files.done("uninstall")?;
        ensure!(text.contains("is the old file again"), "{text}");
        files.expect(&files.old)
    })
}

/// Windows gives the number of a run again, and what an earlier run left by its name may be mapped still.
/// Here something that cannot be removed has every such name.
#[test]
fn names_that_are_taken() -> Result<()> {
    in_workdir("install-wine-taken", |dir| {
        let files = Files::new(dir)?;
        let mut running = Asked::start(&asker(dir)?, &files.base)?;
        let folder = files.base.parent().expect("a folder");
        let taken = || {
            let names = (0..0x1000_u32)
                .step_by(4)
                .map(|run| format!(".service.dll.invivo.{run}"));
            names.flat_map(|name| [format!("{name}.old"), name])
        };
        for name in taken() {
            fs::create_dir(folder.join(name))?;
        }
        files.done("install")?;
        // The old file is mapped, and lies where the same build's is to be kept again.
        fs::remove_file(&files.base)?;
        fs::write(&files.base, &files.old)?;
        files.done("install")?;
        files.expect(&files.new)?;
        ensure!(running.ask("answer 5")?.0 == OLD);
        files.done("uninstall")?;
        files.expect(&files.old)?;
        for name in taken() {
            fs::remove_dir(folder.join(name))?;
        }
        drop(running);
        files.done("install")?;
        files.done("uninstall")?;
        ensure!(files.hidden()?.is_empty(), "{:?}", files.hidden()?);
        Ok(())
    })
}

/// The disk first, then the process that cannot stop: it still runs the old file, which lies beside the
/// new one by then. Then both ways back.
#[test]
fn the_disk_and_then_what_runs() -> Result<()> {
    in_workdir("install-wine-both", |dir| {
        let files = Files::new(dir)?;
        let mut running = Asked::start(&asker(dir)?, &files.base)?;
        let pid = running.ask("PID 0")?.0.to_string();
        let number: u32 = pid.parse()?;
        files.done("install")?;
        for (verb, state, told, answer) in [
            ("apply", "active", "patched", NEW),
            ("revert", "removed", "removed", OLD),
            ("apply", "active", "patched", NEW),
            ("revert", "removed", "removed", OLD),
        ] {
            let words = [verb, &name(&files.hot), "--pid", &pid].map(str::to_owned);
            let (text, code) = files.run(&words)?;
            ensure!(code == 0, "{verb}: {text}");
            ensure!(running.ask("answer 5")?.0 == answer, "{verb}");
            let line = format!("{told}; on disk: fixed");
            ensure!(files.standing()? == [line], "{verb}");
            let words = ["status", &name(&files.hot), "--json"].map(str::to_owned);
            let (text, code) = files.run(&words)?;
            ensure!(code == 0, "{text}");
            let json: serde_json::Value = serde_json::from_str(&text)?;
            let mut all = json["processes"].as_array().into_iter().flatten();
            let own = all.find(|one| one["pid"] == number);
            let wanted = serde_json::json!({
                "pid": number,
                "exe": "asker.exe",
                "module": name(&files.base),
                "state": state,
                "on_disk": "fixed",
                "on_disk_name": "service",
            });
            ensure!(own == Some(&wanted), "{verb}: {json}");
        }
        files.done("uninstall")?;
        ensure!(files.standing()? == ["removed; on disk: old"]);
        files.expect(&files.old)
    })
}

/// A package brings the base's own build again while a process still runs the old file, which lies where the
/// old file is to be kept: it makes room, and the process goes on.
#[test]
fn an_old_file_that_still_runs() -> Result<()> {
    in_workdir("install-wine-again", |dir| {
        let files = Files::new(dir)?;
        let program = asker(dir)?;
        let mut running = Asked::start(&program, &files.base)?;
        ensure!(running.ask("answer 5")?.0 == OLD);
        files.done("install")?;
        fs::remove_file(&files.base)?;
        fs::write(&files.base, &files.old)?;
        let text = files.done("install")?;
        ensure!(text.contains("what starts next is fixed"), "{text}");
        files.expect(&files.new)?;
        // What is mapped could not be removed.
        let is_moved = |path: &PathBuf| path.to_string_lossy().contains(".invivo.");
        ensure!(
            files.hidden()?.iter().any(is_moved),
            "{:?}",
            files.hidden()?
        );
        ensure!(running.ask("answer 5")?.0 == OLD);
        ensure!(Asked::start(&program, &files.base)?.ask("answer 5")?.0 == NEW);
        ensure!(files.standing()? == ["not patched; on disk: fixed"]);
        drop(running);
        files.done("uninstall")?;
        files.expect(&files.old)?;
        // What was moved away is gone once nobody runs it.
        files.done("install")?;
        files.done("uninstall")?;
        ensure!(files.hidden()?.is_empty(), "{:?}", files.hidden()?);
        Ok(())
    })
}

/// Who may read the old file may read the new one, and nobody else. Of an access list Wine keeps what modes
/// of Linux can say, lets whoever may do everything run the file, and gives the group what the owner has.
#[test]
fn who_may_read_it() -> Result<()> {
    in_workdir("install-wine-rights", |dir| {
        let files = Files::new(dir)?;
        for wanted in [0o600, 0o604] {
            let mode = || -> Result<u32> { Ok(fs::metadata(&files.base)?.permissions().mode()) };
            fs::set_permissions(&files.base, Permissions::from_mode(wanted))?;
            for verb in ["install", "uninstall"] {
                files.done(verb)?;
                let found = mode()? & 0o606;
                ensure!(found == wanted, "{verb}: {found:o}, not {wanted:o}");
            }
        }
        Ok(())
    })
}

/// Ends a tool that was started here.
fn killed_after(mut child: Child, time: Duration) -> Result<()> {
    std::thread::sleep(time);
    let _ = child.kill();
    child.wait()?;
    Ok(())
}

/// Each state between two steps is made up for by the next command; so is what a tool leaves that
/// is killed at some moment.
#[test]
fn a_tool_that_dies() -> Result<()> {
    in_workdir("install-wine-dies", |dir| {
        let files = Files::new(dir)?;
        files.done("install")?;
        let hidden = files.hidden()?;
        let [hidden] = &hidden[..] else {
            anyhow::bail!("the old file alone lies beside it: {hidden:?}");
        };
        files.done("uninstall")?;
        let folder = files.base.parent().expect("a folder");
        let waits = folder.join(".service.dll.invivo.7");
        let half = &files.new[..files.new.len() / 2];
        // Of a build that came before, and was patched, too.
        let elder = folder.join(".service.dll.invivo-0123456789abcdef");
        fs::write(&elder, &files.new)?;
        for verb in ["install", "uninstall"] {
            for state in ["half", "linked", "nowhere"] {
                fs::write(&waits, if state == "half" { half } else { &files.new })?;
                match state {
                    "half" => {}
                    "linked" => fs::hard_link(&files.base, hidden)?,
                    _ => fs::rename(&files.base, hidden)?,
                }
                let (text, code) = files.run(&files.words(verb))?;
                // Nothing is installed, so that there is nothing to take back.
                let wanted = i32::from(verb == "uninstall");
                ensure!(code == wanted, "{verb} {state}: {text}");
                if verb == "install" {
                    files.expect(&files.new)?;
                    files.done("uninstall")?;
                }
                files.expect(&files.old)?;
                ensure!(!waits.exists(), "{verb} {state}: it is cleared away");
                let _ = fs::remove_file(hidden);
            }
        }
        // Nothing tells which of two it was: none is taken, and nothing is deleted.
        fs::rename(&files.base, hidden)?;
        fs::write(&waits, half)?;
        for verb in ["install", "uninstall"] {
            let (text, code) = files.run(&files.words(verb))?;
            ensure!(code == 1 && text.contains("is not known"), "{verb}: {text}");
            ensure!(!files.base.exists() && waits.exists() && files.hidden()?.len() == 3);
        }
        fs::rename(hidden, &files.base)?;
        files.done("install")?;
        files.done("uninstall")?;
        ensure!(files.hidden()? == [elder], "{:?}", files.hidden()?);
        for round in 0..6 {
            let wine = Wine::ready()?;
            let mut command = wine.command(&files.tool);
            command.args(files.words("install")).stdout(Stdio::null());
            let child = command.stderr(Stdio::null()).spawn()?;
            killed_after(child, Duration::from_millis(120 * round))?;
            let found = fs::read(&files.base).ok();
            let whole = found.is_none_or(|found| found == files.old || found == files.new);
            ensure!(whole, "round {round}: a mixture");
            files.done("install")?;
            files.expect(&files.new)?;
            files.done("uninstall")?;
            files.expect(&files.old)?;
        }
        Ok(())
    })
}
