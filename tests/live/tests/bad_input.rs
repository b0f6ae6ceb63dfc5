//! What must be refused: with the right exit code, a message that says why, and a target that is exactly as before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::binary;
use live_tests::compile::{Build, compile_program, tool};
use live_tests::invivo::{self, apply, invivo, invivo_through};
use live_tests::memory::{Snapshot, mappings};
use live_tests::pair::Pair;
use live_tests::run::{Ran, run};
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

// A running greeting and a good patch for it; afterwards the process must be as if nothing had been tried.
fn unharmed(name: &str, body: impl FnOnce(&Path, &Pair, &Path, u32) -> Result<()>) -> Result<()> {
    in_workdir(name, |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let patch = pair.patch()?;
        let mut target = pair.start()?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        let (before, all) = (Snapshot::of(target.pid())?, mappings(target.pid())?);
        body(dir, &pair, &patch, target.pid())?;
        before.expect_same()?;
        ensure!(all == mappings(target.pid())?, "a mapping was left behind");
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

fn words(path: &Path) -> String {
    path.display().to_string()
}

/// A process number that was in use a moment ago.
#[test]
fn no_such_process() -> Result<()> {
    unharmed("no-process", |_, _, patch, _| {
        let mut gone = Command::new("true").spawn()?;
        gone.wait()?;
        apply(patch, gone.id(), &[])?.expect_failure(6, &[&gone.id().to_string()])?;
        Ok(())
    })
}

/// An ordinary user and a process of root: permission is told apart from every other failure, with a way out.
#[test]
fn not_permitted() -> Result<()> {
    unharmed("not-permitted", |dir, _, patch, pid| {
        let ran = if am_root()? {
            // Copied, because an ordinary user may not be able to reach the folder that it was built in.
            let copy = dir.join("invivo");
            fs::copy(binary::invivo()?, &copy)?;
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(copy);
            command
                .arg("apply")
                .arg(patch)
                .args(["-p", &pid.to_string()]);
            invivo_through(command).context("setpriv is part of util-linux")?
        } else {
            apply(patch, 1, &[])?
        };
        ran.expect_failure(5, &["hint: "])?;
        Ok(())
    })
}

fn am_root() -> Result<bool> {
    let mut id = Command::new("id");
    id.arg("-u");
    Ok(run(id, std::time::Duration::from_secs(10))?.stdout.trim() == "0")
}

/// The process runs, but another program altogether.
#[test]
fn process_of_another_program() -> Result<()> {
    unharmed("other-program", |dir, _, patch, _| {
        let other = Pair::build(&dir.join("other"), "recursion.c", Build::default())?;
        let mut target = other.start()?;
        let before = Snapshot::of(target.pid())?;
        apply(patch, target.pid(), &[])?.expect_failure(1, &["greeting"])?;
        before.expect_same()?;
        target.expect_all(&other.fixture.asks, Side::Old)
    })
}

/// The same program by name, another build of it: only the build id tells.
#[test]
fn wrong_build_id() -> Result<()> {
    unharmed("build-id", |dir, _, patch, _| {
        let flags = ["-Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567"];
        let other = Pair::build(
            &dir.join("other"),
            "greeting.c",
            Build {
                flags: &flags,
                ..Build::default()
            },
        )?;
        let mut target = other.start()?;
        let before = Snapshot::of(target.pid())?;
        apply(patch, target.pid(), &[])?.expect_failure(1, &["build id"])?;
        before.expect_same()?;
        target.expect_all(&other.fixture.asks, Side::Old)
    })
}

fn expect_damage_refused(damaged: &Path, pid: u32, at: usize, what: &str) -> Result<()> {
    let ran = apply(damaged, pid, &[])?;
    // Without its first bytes it is no image at all, which is the caller's mistake rather than a damaged patch.
    let code = if at < 64 && ran.code == Some(2) { 2 } else { 1 };
    ran.expect_failure(code, &[])
        .with_context(|| format!("{what} at byte {at}"))?;
    Ok(())
}

/// A download that broke off, at the start, inside each table, and one byte before the end.
#[test]
fn truncated_patch() -> Result<()> {
    unharmed("truncated", |dir, _, patch, pid| {
        let whole = fs::read(patch)?;
        let damaged = dir.join("truncated.patch");
        let mut lengths = vec![0, 1, 4, 16, 63, 64, 65, whole.len() - 64, whole.len() - 1];
        lengths.extend((1..16).map(|part| whole.len() * part / 16));
        for length in lengths {
            fs::write(&damaged, &whole[..length])?;
            expect_damage_refused(&damaged, pid, length, "truncated")?;
        }
        Ok(())
    })
}

/// One flipped bit anywhere, code and padding included: refused before the first write.
#[test]
fn corrupted_patch() -> Result<()> {
    unharmed("corrupted", |dir, _, patch, pid| {
        let whole = fs::read(patch)?;
        let damaged = dir.join("corrupted.patch");
        for step in 0..96 {
            let at = (whole.len() - 1) * step / 95;
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (step % 8);
            fs::write(&damaged, &bytes)?;
            expect_damage_refused(&damaged, pid, at, "a bit was flipped")?;
        }
        Ok(())
    })
}

/// A patch whose header names another machine.
#[test]
fn patch_for_another_machine() -> Result<()> {
    unharmed("machine", |dir, _, patch, pid| {
        let mut bytes = fs::read(patch)?;
        ensure!(
            bytes[18..20] == [62, 0],
            "the patch is not an ELF file for x86-64"
        );
        bytes[18] = 183;
        let foreign = dir.join("foreign.patch");
        fs::write(&foreign, &bytes)?;
        apply(&foreign, pid, &[])?.expect_failure(1, &[])?;
        Ok(())
    })
}

/// A debugger has the process: only one may, and it keeps what it has.
#[test]
fn already_traced_process() -> Result<()> {
    unharmed("traced", |dir, _, patch, pid| {
        let program = compile_program(dir, "tracer")?;
        let tracer = Target::start(&program, &[pid.to_string()])?;
        apply(patch, pid, &[])?.expect_failure(3, &["traced", &tracer.pid().to_string()])?;
        Ok(())
    })
}

/// A process that somebody has stopped stays stopped; the tool says so instead of waiting for ever.
#[test]
fn stopped_process() -> Result<()> {
    unharmed("stopped", |_, _, patch, pid| {
        signal("STOP", pid)?;
        let ran = apply(patch, pid, &["--timeout", "2"]);
        let state = fs::read_to_string(format!("/proc/{pid}/status"))?;
        signal("CONT", pid)?;
        ran?.expect_failure(3, &["stopped"])?;
        ensure!(
            state.contains("State:\tT (stopped)"),
            "the process did not stay stopped\n{state}"
        );
        Ok(())
    })
}

fn signal(name: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()?;
    ensure!(status.success(), "cannot send SIG{name} to {pid}");
    Ok(())
}

/// No room for the patch: said so, and no half of a file is left. The disk is a file system of one page, in a mount
/// namespace of its own, which an ordinary user may make as well.
#[test]
fn full_disk() -> Result<()> {
    in_workdir("full-disk", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let disk = dir.join("disk");
        fs::create_dir(&disk)?;
        let script = "mount -t tmpfs -o size=4k tmpfs \"$1\" || exit 99
            head -c 4096 /dev/zero > \"$1/filled\" || exit 98
            \"$2\" build \"$3\" \"$4\" -o \"$1/fix.patch\"
            code=$?
            ls -A \"$1\"
            exit $code";
        let mut command = Command::new("unshare");
        if !am_root()? {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command
            .arg(&disk)
            .arg(binary::invivo()?)
            .arg(&pair.base)
            .arg(&pair.fixed);
        let ran: Ran = invivo_through(command)?;
        ensure!(
            !matches!(ran.code, Some(98 | 99)),
            "cannot set up a full disk\n{}",
            ran.told()
        );
        ensure!(
            !matches!(ran.code, None | Some(0 | 70 | 101)),
            "a full disk is no success and no defect\n{}",
            ran.told()
        );
        ensure!(
            ran.stderr.contains("No space left"),
            "the reason is not told\n{}",
            ran.told()
        );
        ensure!(
            ran.stdout.lines().last() == Some("filled"),
            "something else was left\n{}",
            ran.told()
        );
        Ok(())
    })
}

/// Base and fixed swapped by mistake: that is a patch from the fixed program back, and does not fit the running base.
#[test]
fn base_and_fixed_swapped() -> Result<()> {
    unharmed("swapped", |dir, pair, _, pid| {
        let back = dir.join("back.patch");
        invivo::build(&pair.fixed, &pair.base, &back, &[])?;
        apply(&back, pid, &[])?.expect_failure(1, &["build id"])?;
        Ok(())
    })
}

/// Two equal images: told in words; an empty patch would look like a fix.
#[test]
fn identical_images() -> Result<()> {
    unharmed("identical", |dir, pair, _, _| {
        let out = dir.join("empty.patch");
        let base = words(&pair.base);
        let ran = invivo(&["build", &base, &base, "-o", &words(&out)])?;
        ensure!(
            matches!(ran.code, Some(0 | 1)),
            "expected 0 or 1\n{}",
            ran.told()
        );
        let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
        ensure!(
            said.contains("nothing to patch"),
            "it is not told\n{}",
            ran.told()
        );
        ensure!(!out.exists(), "an empty patch was written");
        Ok(())
    })
}

/// Without symbols and debug data nothing can be proved: refused, with the way to give the debug file.
#[test]
fn stripped_image_without_debug_file() -> Result<()> {
    in_workdir("no-debug", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        for program in [&pair.base, &pair.fixed] {
            let mut strip = Command::new("strip");
            strip.arg(program);
            tool(strip)?;
        }
        let out = dir.join("fix.patch");
        let ran = invivo(&[
            "build",
            &words(&pair.base),
            &words(&pair.fixed),
            "-o",
            &words(&out),
        ])?;
        ran.expect_failure(1, &["hint: ", "--base-debug"])?;
        ensure!(
            !out.exists(),
            "refused, but a patch was written all the same"
        );
        Ok(())
    })
}

/// The caller's own mistakes: no such file, no image, no arguments. Nothing is written.
#[test]
fn usage() -> Result<()> {
    in_workdir("usage", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let (missing, out): (PathBuf, PathBuf) = (dir.join("missing"), dir.join("fix.patch"));
        let (base, missing, out) = (words(&pair.base), words(&missing), words(&out));
        let text = dir.join("text");
        fs::write(&text, "This is not an image.\n")?;
        invivo(&["build", &base, &missing, "-o", &out])?.expect_failure(2, &["missing"])?;
        invivo(&["build", &base, &words(&text), "-o", &out])?.expect_failure(2, &["text"])?;
        invivo(&["apply", &missing, "-p", "1"])?.expect_failure(2, &["missing"])?;
        invivo(&["apply"])?.expect_code(2)?;
        invivo(&["nonsense"])?.expect_code(2)?;
        ensure!(!Path::new(&out).exists(), "a patch was written");
        Ok(())
    })
}
