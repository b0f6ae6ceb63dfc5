//! Which processes run old code, and why: told from outside, with nothing stopped and nothing changed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use live_tests::binary;
use live_tests::compile::{Version, compile};
use live_tests::invivo::{self, apply, invivo, revert};
use live_tests::killed::{Whom, killed_before};
use live_tests::marked::marked;
use live_tests::memory::{Snapshot, mappings};
use live_tests::run::wait_for;
use live_tests::workdir::in_workdir;
use serde_json::Value;

// What `invivo status` says about one process.
fn status(file: &Path, pid: u32) -> Result<Value> {
    let ran = invivo(&["status", &file.display().to_string(), "--json"])?;
    let json = ran.expect_code(0)?.json("invivo.status/1")?;
    let mut all = json["processes"].as_array().into_iter().flatten();
    let own = all.find(|process| process["pid"] == pid);
    own.cloned().with_context(|| ran.told())
}

fn expect(file: &Path, pid: u32, state: &str) -> Result<Value> {
    let told = status(file, pid)?;
    ensure!(told["state"] == state, "expected {state}: {told}");
    Ok(told)
}

/// From the first look to the last: checked, applied, reverted; asked by patch and by program file.
#[test]
fn states_of_a_life() -> Result<()> {
    in_workdir("states", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let target = marked.pair.start()?;
        let (pid, patch, program) = (target.pid(), &marked.patch, &marked.pair.base);
        expect(patch, pid, "checked")?;
        expect(program, pid, "unpatched")?;
        apply(patch, pid, &[])?.expect_state("applied")?;
        for file in [patch, program] {
            let told = expect(file, pid, "applied")?;
            ensure!(told["live"][0] == marked.name.as_str(), "{told}");
        }
        let text = invivo(&["status", &patch.display().to_string()])?;
        ensure!(
            text.stdout.contains("1 process runs it; 1 is patched"),
            "{}",
            text.told()
        );
        // Without a file: every image that is patched somewhere.
        let every = invivo(&["status", "--json"])?.json("invivo.status/1")?;
        let mut every = every["processes"].as_array().into_iter().flatten();
        ensure!(every.any(|process| process["pid"] == pid), "not among all");
        revert(None, pid)?.expect_state("reverted")?;
        expect(patch, pid, "reverted")?;
        Ok(())
    })
}

/// A thread that waits inside the old function is named, with the place; when it has left, the patch is all there is.
#[test]
fn pending_names_threads_in_old_code() -> Result<()> {
    in_workdir("pending", |dir| {
        // With a frame pointer the registers of a waiting thread would be needed, which only stopping it shows.
        for flags in [&[][..], &["-fno-omit-frame-pointer"]] {
            let marked = marked(dir, "stayer.c", flags)?;
            let mut target = marked.pair.start()?;
            let thread: i64 = target.ask("who")?.parse()?;
            apply(&marked.patch, target.pid(), &[])?.expect_state("applied")?;
            let told = expect(&marked.patch, target.pid(), "pending")?;
            ensure!(
                told["threads"][0]["tid"] == thread && told["threads"][0]["name"] == "stayer",
                "{told}"
            );
            ensure!(told["reason"].to_string().contains("dwell"), "{told}");
            target.expect("release", "10")?;
            if flags.is_empty() {
                expect(&marked.patch, target.pid(), "applied")?;
            }
        }
        Ok(())
    })
}

/// A main loop never returns, so its fix never takes effect: `entry` applies, and the status says who goes on in the
/// old one; `quiescent` is blocked by it.
#[test]
fn main_loop_stays_in_old_code() -> Result<()> {
    in_workdir("main-loop", |dir| {
        let marked = marked(dir, "main_loop.c", &[])?;
        let mut target = marked.pair.start()?;
        let quiescent = ["--consistency", "quiescent", "--timeout", "0.5"];
        apply(&marked.patch, target.pid(), &quiescent)?.expect_failure(3, &["serve_all"])?;
        apply(&marked.patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect("version", "old")?;
        // Until it waits again it is not seen where it is.
        wait_for("the thread waits for a question", || {
            Ok(status(&marked.patch, target.pid())?["state"] == "pending")
        })?;
        let told = expect(&marked.patch, target.pid(), "pending")?;
        ensure!(told["reason"].to_string().contains("serve_all"), "{told}");
        Ok(())
    })
}

/// What a tool that was killed left is neither applied nor not, and the way out is named.
#[test]
fn unfinished_names_the_remedy() -> Result<()> {
    in_workdir("unfinished", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let target = marked.pair.start()?;
        let (pid, patch) = (target.pid().to_string(), marked.patch.display().to_string());
        for step in 0.. {
            let killed = killed_before(&["apply", &patch, "-p", &pid], step, Whom::Everything)?;
            ensure!(killed, "at no step anything was left over");
            let told = status(&marked.patch, target.pid())?;
            if told["state"] == "unfinished" {
                ensure!(
                    told["reason"].to_string().contains("invivo recover"),
                    "{told}"
                );
                break;
            }
        }
        invivo::recover(target.pid())?.expect_code(0)?;
        let told = status(&marked.patch, target.pid())?;
        ensure!(told["state"] != "unfinished", "{told}");
        Ok(())
    })
}

/// A patch that an older one may not replace: the process is refused, with the reason.
#[test]
fn refused_says_why() -> Result<()> {
    in_workdir("refused", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let mut target = marked.pair.start()?;
        // A breakpoint, as a debugger leaves it, lies in code that the patch replaces.
        let broken = dir.join("broken.gdb");
        fs::write(
            &broken,
            "set confirm off\nset {char}greet = 0xcc\ndetach\nquit\n",
        )?;
        let mut gdb = Command::new("gdb");
        gdb.args(["-q", "-batch", "-p", &target.pid().to_string(), "-x"])
            .arg(&broken);
        let ran = live_tests::run::run(gdb, Duration::from_secs(60))?;
        let told = expect(&marked.patch, target.pid(), "refused").with_context(|| ran.told())?;
        ensure!(told["reason"].to_string().contains("greet"), "{told}");
        target.expect("count 5", "5")
    })
}

/// Asking changes no byte, no mapping, and stops nobody: a process that is already traced can be asked as well.
#[test]
fn status_touches_nothing() -> Result<()> {
    in_workdir("touches", |dir| {
        let marked = marked(dir, "crowd.c", &[])?;
        let mut target = marked.pair.start()?;
        apply(&marked.patch, target.pid(), &[])?.expect_state("applied")?;
        let (before, all) = (Snapshot::of(target.pid())?, mappings(target.pid())?);
        let program = live_tests::compile::compile_program(dir, "tracer")?;
        let pid = target.pid().to_string();
        let _tracer = live_tests::target::Target::start(&program, &[pid])?;
        let told = expect(&marked.patch, target.pid(), "applied")?;
        let reason = told["reason"].to_string();
        ensure!(reason.contains("2 threads run all the time"), "{told}");
        before.expect_same()?;
        ensure!(all == mappings(target.pid())?, "a mapping is new");
        target.expect("trouble", "early 0 strange 0")?;
        target.expect("interrupted", "0")
    })
}

/// A newer patch is live: the older one has nothing left to do.
#[test]
fn a_newer_patch_counts() -> Result<()> {
    in_workdir("newer", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let mark = dir.join("mark.h").display().to_string();
        let build = live_tests::compile::Build {
            flags: &["-include", &mark],
            ..live_tests::compile::Build::default()
        };
        let again = compile(dir, &marked.pair.fixture, Version::FixedAgain, build)?;
        let second = dir.join("second.patch");
        let name = format!("{}_second", marked.name);
        let more = ["--name", &name, "--sequence", "2"];
        invivo::build(&marked.pair.base, &again, &second, &more)?;
        let target = marked.pair.start()?;
        apply(&marked.patch, target.pid(), &[])?.expect_state("applied")?;
        expect(&second, target.pid(), "checked")?;
        apply(&second, target.pid(), &[])?.expect_state("applied")?;
        expect(&marked.patch, target.pid(), "applied")?;
        Ok(())
    })
}

/// `--watch` tells each change once: a patch that is applied, and one that is lost because its process was restarted.
#[test]
fn watch_tells_changes() -> Result<()> {
    in_workdir("watch", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let first = marked.pair.start()?;
        let mut tool = Command::new(binary::invivo()?)
            .args(["status", &marked.patch.display().to_string(), "--watch=0.1"])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = tool.stdout.take().context("no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let wait_for = |words: &[&str]| -> Result<()> {
            loop {
                let line = lines.recv_timeout(Duration::from_secs(20));
                let line = line.with_context(|| format!("nothing is told of {words:?}"))?;
                if words.iter().all(|word| line.contains(word)) {
                    return Ok(());
                }
            }
        };
        let told = (|| {
            wait_for(&[&first.pid().to_string(), "checked"])?;
            apply(&marked.patch, first.pid(), &[])?.expect_state("applied")?;
            wait_for(&[&first.pid().to_string(), "applied", &marked.name])?;
            let old = first.pid().to_string();
            drop(first);
            wait_for(&[&old, "ended"])?;
            let second = marked.pair.start()?;
            wait_for(&[&second.pid().to_string(), "lost", &old])
        })();
        let mut end = Command::new("kill");
        end.args(["-INT", &tool.id().to_string()]).status()?;
        let ended = tool.wait()?;
        told?;
        ensure!(ended.success(), "the interrupted watch ended with {ended}");
        Ok(())
    })
}
