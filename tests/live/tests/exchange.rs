//! Files are exchanged on disk: what runs goes on with the old code, what starts next is fixed, and the old file comes
//! back; the tool may be killed at any system call.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::{Build, Version, compile};
use live_tests::exchanged::killed_at_every_system_call_of;
use live_tests::invivo::{self, apply, invivo, invivo_through};
use live_tests::pair::Pair;
use live_tests::target::Side;
use live_tests::workdir::in_workdir;
use serde_json::Value;

/// A fixture, and the final image for the file that its base runs from.
struct Scene {
    pair: Pair,
    image: PathBuf,
}

impl Scene {
    fn new(dir: &Path, source: &str) -> Result<Self> {
        let pair = Pair::build(dir, source, Build::default())?;
        let image = dir.join("server.final");
        let (base, fixed) = pair.images();
        let [base, fixed, out] = [&base, &fixed, &image].map(|path| path.display().to_string());
        let args = [
            "build", &base, &fixed, "-o", &out, "--name", "fix", "--format", "final",
        ];
        invivo(&args)?.expect_code(0)?;
        Ok(Self { pair, image })
    }

    fn file(&self) -> PathBuf {
        self.pair.images().0
    }

    fn install(&self) -> Result<Value> {
        let ran = invivo(&self.command(true).each_ref().map(String::as_str))?;
        ran.expect_code(0)?.json("invivo.exchange/1")
    }

    fn uninstall(&self) -> Result<Value> {
        let ran = invivo(&["uninstall", &self.file().display().to_string(), "--json"])?;
        ran.expect_code(0)?.json("invivo.exchange/1")
    }

    fn command(&self, install: bool) -> [String; 4] {
        let (image, file) = (
            self.image.display().to_string(),
            self.file().display().to_string(),
        );
        if install {
            ["install".to_owned(), image, file, "--json".to_owned()]
        } else {
            [
                "uninstall".to_owned(),
                file,
                "--json".to_owned(),
                "--quiet".to_owned(),
            ]
        }
    }

    fn status(&self, pid: u32) -> Result<Value> {
        status_of(&self.image, pid)
    }

    /// The final image of the second version of the fix, which has the name of the first one.
    fn second_version(&self, dir: &Path) -> Result<PathBuf> {
        let again = compile(
            dir,
            &self.pair.fixture,
            Version::FixedAgain,
            Build::default(),
        )?;
        let image = dir.join("second.final");
        let [base, fixed, out] =
            [&self.file(), &again, &image].map(|path| path.display().to_string());
        let args = [
            "build", &base, &fixed, "-o", &out, "--name", "fix", "--format", "final",
        ];
        invivo(&args)?.expect_code(0)?;
        Ok(image)
    }

    /// The line about a process that a person gets to see.
    fn told(&self, pid: u32) -> Result<String> {
        let ran = invivo(&["status", &self.image.display().to_string()])?;
        let begin = format!("{pid} {}: ", self.file().display());
        let mut lines = ran.expect_code(0)?.stdout.lines();
        let line = lines.find_map(|line| line.strip_prefix(&begin));
        line.map(str::to_owned).with_context(|| ran.told())
    }
}

/// How a process stands to a file.
fn status_of(file: &Path, pid: u32) -> Result<Value> {
    let ran = invivo(&["status", &file.display().to_string(), "--json"])?;
    let json = ran.expect_code(0)?.json("invivo.status/1")?;
    let mut all = json["processes"].as_array().into_iter().flatten();
    let own = all.find(|process| process["pid"] == pid);
    own.cloned().with_context(|| ran.told())
}

/// The way of a fix: first the disk, then the process that cannot stop, then back.
#[test]
fn a_program_on_disk_and_in_a_process() -> Result<()> {
    in_workdir("exchange", |dir| {
        let scene = Scene::new(dir, "greeting.c")?;
        let file = scene.file();
        let old = file.metadata()?;
        let (second, patch) = (scene.second_version(dir)?, dir.join("other.patch"));
        let images = scene.pair.images();
        invivo::build(&images.0, &images.1, &patch, &["--name", "other"])?;
        let mut running = scene.pair.start()?;
        let asks = &scene.pair.fixture.asks;
        running.expect_all(asks, Side::Old)?;
        // What is on disk is told where it is not what runs.
        let told = scene.told(running.pid())?;
        ensure!(told == "checked", "{told}");

        let told = scene.install()?;
        ensure!(told["state"] == "installed", "{told}");
        running.expect_all(asks, Side::Old)?;
        let mut next = scene.pair.start()?;
        next.expect_all(asks, Side::New)?;
        let status = scene.status(running.pid())?;
        ensure!(
            status["on_disk"] == "fixed" && status["state"] == "checked",
            "{status}"
        );
        ensure!(status["exe"] == file.display().to_string(), "{status}");
        let told = scene.told(running.pid())?;
        ensure!(told == "checked; on disk: fixed", "{told}");

        // The same file is the patch for what runs.
        apply(&scene.image, running.pid(), &[])?.expect_state("applied")?;
        running.expect_all(asks, Side::New)?;
        let status = scene.status(running.pid())?;
        ensure!(
            status["on_disk"] == "fixed" && status["state"] == "applied",
            "{status}"
        );
        let told = scene.told(running.pid())?;
        ensure!(told == "applied fix; on disk: fixed", "{told}");

        // What is on disk is another fix than the second version, whatever both are called; the same fix in a
        // file for processes alone is the same.
        for (file, wanted) in [(&second, "other"), (&patch, "fixed")] {
            let status = status_of(file, running.pid())?;
            let (now, name) = (&status["on_disk"], &status["on_disk_name"]);
            ensure!(*now == wanted && *name == "fix", "{status}");
        }
        let about = second.display().to_string();
        let ran = invivo(&["status", &about])?;
        let told = &ran.expect_code(0)?.stdout;
        ensure!(told.contains("; on disk: other (fix)"), "{told}");

        ensure!(scene.install()?["state"] == "installed already");
        ensure!(scene.uninstall()?["state"] == "uninstalled");
        let back = file.metadata()?;
        ensure!((old.ino(), old.mtime_nsec()) == (back.ino(), back.mtime_nsec()));
        scene.pair.start()?.expect_all(asks, Side::Old)?;
        ensure!(scene.status(running.pid())?["on_disk"] == "same");
        let told = scene.told(running.pid())?;
        ensure!(told == "applied fix", "{told}");
        let again = invivo(&["uninstall", &file.display().to_string()])?;
        again.expect_code(1)?;
        ensure!(again.stderr.contains("no final image"), "{}", again.told());
        Ok(())
    })
}

/// A library is exchanged in the same way: every new mapping gets the fixed one.
#[test]
fn a_library() -> Result<()> {
    in_workdir("exchange-library", |dir| {
        let scene = Scene::new(dir, "linked.c")?;
        let asks = &scene.pair.fixture.asks;
        let mut running = scene.pair.start()?;
        scene.install()?;
        running.expect_all(asks, Side::Old)?;
        scene.pair.start()?.expect_all(asks, Side::New)?;
        scene.uninstall()?;
        scene.pair.start()?.expect_all(asks, Side::Old)?;
        Ok(())
    })
}

/// Killed before each system call of both commands: the name leads to the whole old file or to the whole new one, which
/// run, and the command given again ends as if nothing had been.
#[test]
fn killed_at_every_system_call() -> Result<()> {
    in_workdir("exchange-killed", |dir| {
        let scene = Scene::new(dir, "greeting.c")?;
        killed_at_every_system_call_of(&scene.image, &scene.file())
    })
}

/// So is one that sets user and group: the name never leads to a file that does not, and what is hidden does not in the end.
#[test]
fn one_with_rights_killed_at_every_system_call() -> Result<()> {
    in_workdir("exchange-rights-killed", |dir| {
        let scene = Scene::new(dir, "greeting.c")?;
        fs::set_permissions(scene.file(), fs::Permissions::from_mode(0o6751))?;
        killed_at_every_system_call_of(&scene.image, &scene.file())
    })
}

/// What is not the base is refused with what it is, and stays.
#[test]
fn another_file_is_refused() -> Result<()> {
    in_workdir("exchange-refused", |dir| {
        let scene = Scene::new(dir, "greeting.c")?;
        let other = dir.join("other");
        fs::copy(&scene.pair.fixed, &other)?;
        let before = fs::read(&other)?;
        let [image, path] = [&scene.image, &other].map(|path| path.display().to_string());
        let ran = invivo(&["install", &image, &path])?;
        ran.expect_code(1)?;
        ensure!(
            ran.stderr
                .contains("is not the file that this was made for"),
            "{}",
            ran.told()
        );
        let ran = invivo(&["install", &path, &image])?;
        ran.expect_code(1)?;
        ensure!(ran.stderr.contains("not a final image"), "{}", ran.told());
        // One that was changed on its way is not taken for anything else.
        let damaged = dir.join("damaged");
        let mut bytes = fs::read(&scene.image)?;
        bytes[0x200] ^= 1;
        fs::write(&damaged, bytes)?;
        let damaged = damaged.display().to_string();
        for words in [
            &["inspect", &damaged][..],
            &["status", &damaged],
            &["install", &damaged, &path],
        ] {
            let ran = invivo(words)?;
            ran.expect_code(1)?;
            ensure!(
                ran.stderr.contains("the final image is damaged"),
                "{}",
                ran.told()
            );
        }
        ensure!(fs::read(&other)? == before);
        Ok(())
    })
}

/// What a command of the tool does to the disk, in its order: what it writes and waits for, and which names it changes. With
/// `fail` the kernel refuses a call, as some file systems do.
fn on_its_way_to_the_disk(
    command: &[String],
    dir: &Path,
    fail: Option<&str>,
) -> Result<Vec<String>> {
    let told = dir.join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "0", "-e"]);
    strace.arg(
        "trace=/^(write|pwrite64|fsync|fdatasync|syncfs|fch.*|.*xattr|rename.*|link.*|unlink.*)$",
    );
    strace.args(fail.map(|fail| format!("--inject={fail}")));
    strace
        .arg("-o")
        .arg(&told)
        .arg(live_tests::binary::invivo()?)
        .args(command);
    invivo_through(strace)?.expect_code(0)?;
    let text = fs::read_to_string(&told)?;
    fs::remove_file(&told)?;
    let (dir, mut steps) = (dir.canonicalize()?.display().to_string(), Vec::new());
    for line in text.lines() {
        // `PID call(FD<path>, …) = 0`
        let call = line
            .split_once(' ')
            .map_or(line, |(_, call)| call.trim_start());
        let (call, rest) = call.split_once('(').unwrap_or((call, ""));
        let path = rest
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        let Some(path) = path.and_then(|(path, _)| path.strip_prefix(&dir)) else {
            continue;
        };
        let whose = match path {
            path if path.contains(".invivo-") => "hidden",
            "" => "folder",
            // The old file under the name that it had when it was opened.
            _ => "old",
        };
        let step = match call {
            "fsync" | "fdatasync" => format!("{whose} on disk"),
            "write" | "pwrite64" => format!("{whose} written"),
            call if call.starts_with("fch") || call.ends_with("xattr") => {
                if call.starts_with("fget") || call.starts_with("flist") {
                    continue;
                }
                format!("{whose} described")
            }
            call => call.to_owned(),
        };
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    Ok(steps)
}

/// After a cut of the power the name leads to a whole file, too: the new one is on the disk, with its owner and mode, before it gets
/// the name, and the names are before the command says that it is done.
#[test]
fn in_which_order_it_comes_to_the_disk() -> Result<()> {
    for (name, source) in [
        ("exchange-order", "greeting.c"),
        ("exchange-order-library", "linked.c"),
    ] {
        in_workdir(name, |dir| {
            let scene = Scene::new(dir, source)?;
            let file = scene.file();
            let folder = file.parent().context("a folder")?;
            let before = ["hidden written", "hidden described", "hidden on disk"];
            // The old file's second name is cleared first, which is not there.
            let clear = ["unlinkat"];
            let by_two_names = ["renameat2", "renameat", "linkat", "renameat"];
            let fail = Some("renameat2:error=EINVAL");
            let cases = [
                (0o755, true, None, &["renameat2"][..]),
                (0o755, false, None, &["renameat"]),
                (0o755, true, fail, &by_two_names),
                (0o755, false, None, &["renameat"]),
                (0o4755, true, None, &["renameat2"]),
                (0o4755, false, None, &["renameat"]),
                (0o4755, true, fail, &by_two_names),
            ];
            for (mode, installs, fail, names) in cases {
                fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
                // What sets its user leaves the old file when the names are on the disk, and comes back before.
                let rights = match (mode, fail) {
                    (0o755, _) => &[][..],
                    (_, None) => &["hidden described", "hidden on disk"],
                    // It was opened by the name that is another file's now.
                    _ => &["old described", "old on disk"],
                };
                let steps = on_its_way_to_the_disk(&scene.command(installs), folder, fail)?;
                let mut wanted = Vec::new();
                if installs {
                    wanted.extend(clear.iter().chain(&before));
                }
                if !installs {
                    wanted.extend(rights);
                }
                wanted.extend(names);
                wanted.push("folder on disk");
                if installs {
                    wanted.extend(rights);
                }
                ensure!(steps == wanted, "{fail:?}: {steps:?}, and not {wanted:?}");
            }
            scene.uninstall()?;
            Ok(())
        })?;
    }
    Ok(())
}

/// A library, too, is whole whenever the tool is killed.
#[test]
fn a_library_killed_at_every_system_call() -> Result<()> {
    in_workdir("exchange-library-killed", |dir| {
        let scene = Scene::new(dir, "linked.c")?;
        killed_at_every_system_call_of(&scene.image, &scene.file())
    })
}

/// On a file system that cannot exchange two names the old file gets its second name first; killed in between, too.
#[test]
fn without_the_exchange_of_names() -> Result<()> {
    in_workdir("exchange-names", |dir| {
        let scene = Scene::new(dir, "greeting.c")?;
        let file = scene.file();
        let (old, new) = (fs::read(&file)?, fs::read(&scene.image)?);
        let entries = |dir: &Path| Ok::<_, anyhow::Error>(fs::read_dir(dir)?.count());
        let clean = entries(dir)?;
        let fail = "inject=renameat2:error=EINVAL";
        for kill in [
            None,
            Some("renameat:signal=KILL:when=1"),
            Some("linkat:signal=KILL"),
            Some("renameat:signal=KILL:when=2"),
        ] {
            let mut command = Command::new("strace");
            command.args(["-f", "-o", "/dev/null", "-e", fail]);
            if let Some(kill) = kill {
                command.args(["-e", &format!("inject={kill}")]);
            }
            command
                .arg(live_tests::binary::invivo()?)
                .args(scene.command(true));
            let ran = invivo_through(command)?;
            let now = fs::read(&file)?;
            ensure!(
                now == if kill.is_none() { &new[..] } else { &old[..] },
                "{kill:?}: {}",
                ran.told()
            );
            if kill.is_some() {
                scene.install()?;
            }
            scene
                .pair
                .start()?
                .expect_all(&scene.pair.fixture.asks, Side::New)?;
            scene.uninstall()?;
            ensure!(fs::read(&file)? == old, "{kill:?}");
            ensure!(entries(dir)? == clean, "{kill:?}: something is left over");
        }
        Ok(())
    })
}

/// A library that programs could no longer bind to is not written, whatever runs.
#[test]
fn a_library_that_others_would_miss_is_refused() -> Result<()> {
    in_workdir("exchange-exports", |dir| {
        let library = |name: &str, soname: &str, source: &str| {
            let (source_file, file) = (dir.join(format!("{name}.c")), dir.join(name));
            fs::write(&source_file, source)?;
            let mut cc = Command::new("cc");
            cc.args([
                "-shared",
                "-fPIC",
                "-O2",
                "-g",
                &format!("-Wl,-soname,{soname}"),
                "-o",
            ]);
            let status = cc.arg(&file).arg(&source_file).status()?;
            ensure!(status.success(), "{name} does not compile");
            Ok(file.display().to_string())
        };
        let base = library(
            "base",
            "lib.so.1",
            "int one(void) { return 1; }\nint two(void) { return 2; }\n",
        )?;
        let renamed = library(
            "renamed",
            "lib.so.2",
            "int one(void) { return 3; }\nint two(void) { return 2; }\n",
        )?;
        let shorter = library("shorter", "lib.so.1", "int one(void) { return 3; }\n")?;
        let image = dir.join("image").display().to_string();
        for (fixed, reason) in [(&renamed, "lib.so.2"), (&shorter, "R-EXPORT two")] {
            let ran = invivo(&["build", &base, fixed, "-o", &image, "--format", "final"])?;
            ran.expect_code(1)?;
            ensure!(ran.stderr.contains(reason), "{}", ran.told());
            ensure!(!Path::new(&image).exists(), "{fixed}");
        }
        Ok(())
    })
}
