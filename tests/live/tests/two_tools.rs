//! Several tools at one process at the same time: one works, the others wait for it or say who it is.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use live_tests::binary;
use live_tests::compile::Build;
use live_tests::invivo::{apply, invivo, invivo_through, listed, revert};
use live_tests::memory::Snapshot;
use live_tests::pair::Pair;
use live_tests::run::Ran;
use live_tests::target::{Side, Target};
use live_tests::unharmed::am_root;
use live_tests::workdir::in_workdir;

// Every tool applies and reverts in turn, in its own rhythm, while the target is asked all the time.
fn at_once(tools: u32, rounds: u32) -> Result<()> {
    in_workdir("at-once", |dir| {
        let pair = Pair::build(dir, "crowd.c", Build::default())?;
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        let before = Snapshot::of(target.pid())?;
        let pid = target.pid();
        thread::scope(|scope| {
            let work = |number: u32| {
                let patch = &patch;
                move || -> Result<()> {
                    for round in 0..rounds {
                        one_of_many(patch, pid, (number + round).is_multiple_of(2))
                            .with_context(|| format!("tool {number}, round {round}"))?;
                    }
                    Ok(())
                }
            };
            let running: Vec<_> = (0..tools).map(|n| scope.spawn(work(n))).collect();
            while !running.iter().all(thread::ScopedJoinHandle::is_finished) {
                let price = target.ask("price")?;
                ensure!(price == "10" || price == "12", "the price is {price}");
            }
            running.into_iter().try_for_each(|tool| {
                tool.join()
                    .map_err(|_| anyhow!("a thread of the test ended"))?
            })
        })?;
        target.expect("trouble", "early 0 strange 0")?;
        revert(None, pid)?.expect_code(0)?;
        ensure!(listed(pid)?.is_empty(), "something is still live");
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        before.expect_same()
    })
}

// Whoever comes second finds the patch applied or reverted already, which is no error.
fn one_of_many(patch: &Path, pid: u32, forth: bool) -> Result<()> {
    let (patch, pid) = (patch.display().to_string(), pid.to_string());
    let words = if forth {
        vec!["apply", &patch, "-p", &pid]
    } else {
        vec!["revert", "-p", &pid]
    };
    invivo(&[&words[..], &["--timeout", "60"]].concat())?
        .expect_code(0)
        .map(|_| ())
}

/// Two tools that want opposite things.
#[test]
fn two_at_once() -> Result<()> {
    at_once(2, 20)
}

/// Eight of them: each waits for up to seven others.
#[test]
fn eight_at_once() -> Result<()> {
    at_once(8, 6)
}

// Starts a tool that takes the process and then waits for a thread which does not leave.
fn waiting(mut tool: Command, patch: &Path, pid: u32) -> Result<Child> {
    let child = tool
        .args(["apply", &patch.display().to_string(), "-p"])
        .args([&pid.to_string(), "--consistency", "quiescent"])
        .args(["--timeout", "60"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    thread::sleep(Duration::from_millis(300));
    Ok(child)
}

// A tool that has the process and waits for a thread which does not leave.
fn with_a_waiting_tool(
    body: impl FnOnce(&Path, &mut Target, u32, &mut Child) -> Result<()>,
) -> Result<()> {
    in_workdir("waiting", |dir| {
        let pair = Pair::build(dir, "stayer.c", Build::default())?;
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        let pid = target.pid();
        let mut first = waiting(Command::new(binary::invivo()?), &patch, pid)?;
        let result = body(&patch, &mut target, pid, &mut first);
        // It has ended already where all went well.
        let _ = first.kill();
        first.wait()?;
        result
    })
}

fn expect_names_the_first(ran: &Ran, first: &Child, pid: u32) -> Result<()> {
    let (holder, target) = (format!("process {}", first.id()), format!("process {pid}"));
    ran.expect_failure(3, &["another invivo", &holder, &target])
        .map(|_| ())
}

/// The second waits as long as it may, then names the first, and has changed nothing; the first is not disturbed.
#[test]
fn the_second_says_who_the_first_is() -> Result<()> {
    with_a_waiting_tool(|patch, target, pid, first| {
        let started = Instant::now();
        let ran = apply(patch, pid, &["--timeout", "1"])?;
        expect_names_the_first(&ran, first, pid)?;
        let waited = started.elapsed();
        ensure!(
            (Duration::from_secs(1)..Duration::from_secs(10)).contains(&waited),
            "waited for {waited:?} instead of one second"
        );
        let ran = invivo(&["revert", "-p", &pid.to_string(), "--timeout", "0"])?;
        expect_names_the_first(&ran, first, pid)?;
        target.expect("release", "10")?;
        ensure!(first.wait()?.success(), "the first did not apply");
        apply(patch, pid, &[])?.expect_state("nothing to do")?;
        target.expect("price", "new 12")
    })
}

/// A lock that outlived its holder would keep everybody out for ever.
#[test]
fn the_lock_dies_with_its_holder() -> Result<()> {
    with_a_waiting_tool(|patch, target, pid, first| {
        first.kill()?;
        apply(patch, pid, &["--timeout", "5"])?.expect_state("applied")?;
        target.expect("price", "new 12")?;
        revert(None, pid)?.expect_state("reverted")?;
        target.expect("price", "old 10")
    })
}

/// From another mount namespace with a `/proc` of its own, every file below `/proc` is another one. An ordinary user
/// can only make one inside a user namespace, from which the kernel lets nobody look out.
#[test]
fn the_lock_holds_across_mount_namespaces() -> Result<()> {
    with_a_waiting_tool(|patch, _, pid, first| {
        let root = am_root()?;
        let mut command = Command::new("unshare");
        command.args(if root {
            &["--mount"][..]
        } else {
            &["--mount", "--map-root-user"]
        });
        let script = if root {
            "mount -t proc proc /proc && exec \"$0\" \"$@\""
        } else {
            "exec \"$0\" \"$@\""
        };
        command.args(["sh", "-c", script]).arg(binary::invivo()?);
        command.arg("apply").arg(patch);
        command.args(["-p", &pid.to_string(), "--timeout", "1"]);
        let ran = invivo_through(command)?;
        if root {
            return expect_names_the_first(&ran, first, pid);
        }
        ran.expect_failure(5, &["not permitted"]).map(|_| ())
    })
}

/// An ordinary user's tool and root's at a process of that user.
#[test]
fn the_lock_holds_across_users() -> Result<()> {
    if !am_root()? {
        // Nobody else may change the process of an ordinary user; the tests run as root as well.
        return with_a_waiting_tool(|patch, _, pid, first| {
            expect_names_the_first(&apply(patch, pid, &["--timeout", "0"])?, first, pid)
        });
    }
    in_workdir("users", |dir| {
        let pair = Pair::build(dir, "stayer.c", Build::default())?;
        let patch = pair.patch()?;
        let copy = dir.join("invivo");
        std::fs::copy(binary::invivo()?, &copy)?;
        let ordinary = |program: &Path| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            command.arg(program);
            command
        };
        let target = Target::start_command(ordinary(&pair.base), &pair.base)?;
        let pid = target.pid();
        let mut first = waiting(ordinary(&copy), &patch, pid)?;
        let ran = apply(&patch, pid, &["--timeout", "0.5"]);
        first.kill()?;
        first.wait()?;
        expect_names_the_first(&ran?, &first, pid)
    })
}

/// Anybody may lock a pidfd. A user who may not change the process does not keep the fix away from it; one who may
/// is believed, and named.
#[test]
fn a_stranger_cannot_hold_the_lock() -> Result<()> {
    in_workdir("stranger", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let patch = pair.patch()?;
        let program = live_tests::compile::compile_program(dir, "stranger")?;
        let target = pair.start()?;
        let pid = target.pid();
        let mut command = Command::new(&program);
        if am_root()? {
            command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
            command.arg(&program);
        }
        command.arg(pid.to_string());
        let stranger = Target::start_command(command, &program)?;
        let ran = apply(&patch, pid, &["--timeout", "1"])?;
        if am_root()? {
            ran.expect_state("applied")?;
        } else {
            ran.expect_failure(3, &[&format!("process {}", stranger.pid())])?;
        }
        Ok(())
    })
}
