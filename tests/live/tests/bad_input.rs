//! Files that must be refused: with the right exit code, a message that says why, and a process that is as before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::binary;
use live_tests::compile::{Build, tool};
use live_tests::invivo::{self, apply, invivo, invivo_through};
use live_tests::pair::Pair;
use live_tests::target::Side;
use live_tests::unharmed::{am_root, unharmed};
use live_tests::workdir::in_workdir;

fn words(path: &Path) -> String {
    path.display().to_string()
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
        let ran = invivo_through(command)?;
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

/// Who trusts one signer refuses, before any write, what nobody signed, what another one signed, and what was changed since.
#[test]
fn unsigned_and_wrongly_signed_patches() -> Result<()> {
    unharmed("signed", |dir, _, patch, pid| {
        let [own, other] = ["own", "other"].map(|name| signer(dir, name));
        let ((own_key, own_cert), (other_key, other_cert)) = (own?, other?);
        let signed_by = |(key, cert): (&str, &str), name: &str| -> Result<PathBuf> {
            let out = dir.join(name);
            let (patch, to) = (words(patch), words(&out));
            let ran = invivo(&["sign", &patch, "--key", key, "--cert", cert, "-o", &to])?;
            ran.expect_code(0)?;
            Ok(out)
        };
        let right = signed_by((&own_key, &own_cert), "right.patch")?;
        let wrong = signed_by((&other_key, &other_cert), "wrong.patch")?;
        let trusted = ["--cert", &own_cert];
        apply(patch, pid, &trusted)?.expect_failure(4, &["not signed"])?;
        apply(&wrong, pid, &trusted)?.expect_failure(4, &["--cert"])?;
        let whole = fs::read(&right)?;
        let damaged = dir.join("damaged.patch");
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&damaged, bytes)?;
            apply(&damaged, pid, &trusted)?
                .expect_failure(4, &[])
                .with_context(|| format!("changed at byte {at}"))?;
        }
        for length in [whole.len() - 1, whole.len() / 2] {
            fs::write(&damaged, &whole[..length])?;
            apply(&damaged, pid, &trusted)?.expect_failure(4, &[])?;
        }
        Ok(())
    })
}

/// A signed patch is the same patch, whether or not somebody asks who signed it.
#[test]
fn a_signed_patch_goes_live() -> Result<()> {
    in_workdir("signed-right", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let mut target = pair.start()?;
        let (pid, patch) = (target.pid(), pair.patch()?);
        let (key, cert) = signer(dir, "own")?;
        let signed = dir.join("signed.patch");
        let (from, to) = (words(&patch), words(&signed));
        invivo(&["sign", &from, "--key", &key, "--cert", &cert, "-o", &to])?.expect_code(0)?;
        invivo(&["verify", &to, "--cert", &cert])?.expect_code(0)?;
        let trusted = ["--cert", &cert];
        apply(&signed, pid, &trusted)?.expect_state("applied")?;
        target.expect_all(&pair.fixture.asks, Side::New)?;
        apply(&signed, pid, &[])?.expect_state("nothing to do")?;
        apply(&patch, pid, &[])?.expect_state("nothing to do")?;
        for command in ["inspect", "status"] {
            invivo(&[command, &to])?.expect_code(0)?;
        }
        invivo::revert(None, pid)?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

// A key and its certificate.
fn signer(dir: &Path, name: &str) -> Result<(String, String)> {
    let [key, cert] = ["key", "cert"].map(|what| words(&dir.join(format!("{name}.{what}.pem"))));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "30", "-newkey", "ec"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args([
        "-subj",
        &format!("/CN={name}"),
        "-keyout",
        &key,
        "-out",
        &cert,
    ]);
    tool(openssl)?;
    Ok((key, cert))
}
