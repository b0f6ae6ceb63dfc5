//! Every process of a program at once, wherever it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use live_tests::binary;
use live_tests::compile::compile_program;
use live_tests::invivo::{apply, invivo, invivo_through, listed, revert};
use live_tests::killed::{Whom, killed_before, work};
use live_tests::marked::{Marked, marked};
use live_tests::memory::Snapshot;
use live_tests::run::{Ran, wait_for};
use live_tests::target::{Side, Target};
use live_tests::unharmed::am_root;
use live_tests::workdir::in_workdir;
use serde_json::Value;

fn outcomes(ran: &Ran) -> Result<Vec<Value>> {
    let json = ran.json("invivo.outcome/1")?;
    Ok(json["processes"].as_array().cloned().unwrap_or_default())
}

// How many processes have which state.
fn count(ran: &Ran, state: &str) -> Result<usize> {
    let all = outcomes(ran)?;
    Ok(all
        .iter()
        .filter(|outcome| outcome["state"] == state)
        .count())
}

/// One is patched, one has a debugger (3), one may not be traced (5): each is told, and the worst of it is the exit code.
#[test]
fn exit_code_by_the_worst() -> Result<()> {
    in_workdir("worst", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let mut targets = Vec::new();
        for _ in 0..3 {
            targets.push(marked.pair.start()?);
        }
        let [free, traced, forbidden] = [0, 1, 2].map(|index: usize| targets[index].pid());
        let tracer = compile_program(dir, "tracer")?;
        let _tracer = Target::start(&tracer, &[traced.to_string()])?;
        let before = [traced, forbidden].map(Snapshot::of);
        let forbid = compile_program(dir, "forbid")?;
        let patch = marked.patch.display().to_string();
        let apply_all = |without: u32| {
            let mut command = Command::new(&forbid);
            command.arg(without.to_string()).arg(binary::invivo()?);
            command.args(["apply", &patch, "--all", "--json"]);
            invivo_through(command)
        };
        let ran = apply_all(forbidden)?;
        ran.expect_failure(
            5,
            &[
                "not permitted",
                "traced",
                &traced.to_string(),
                &forbidden.to_string(),
                "2 of 3 processes: not done",
            ],
        )?;
        let states: BTreeMap<u64, Value> = outcomes(&ran)?
            .into_iter()
            .filter_map(|outcome| Some((outcome["pid"].as_u64()?, outcome["state"].clone())))
            .collect();
        ensure!(
            states[&free.into()] == "applied" && states.len() == 3,
            "{states:?}"
        );
        for before in before {
            before?.expect_same()?;
        }
        // Without the one that may not be traced, the debugger's is the worst.
        let ran = apply_all(1)?;
        ran.expect_failure(3, &["traced", "1 of 3 processes: not done"])?;
        targets[0].expect_all(&marked.pair.fixture.asks, Side::New)?;
        targets[1].expect_all(&marked.pair.fixture.asks, Side::Old)?;
        targets[2].expect_all(&marked.pair.fixture.asks, Side::New)
    })
}

/// Two hundred processes of one program; none is left out, and each is restored byte for byte.
#[test]
fn two_hundred_processes() -> Result<()> {
    const MANY: usize = 200;
    in_workdir("many", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let mut targets = Vec::new();
        for _ in 0..MANY {
            targets.push(marked.pair.start()?);
        }
        let before = Snapshot::of(targets[0].pid())?;
        let ran = marked.apply_all(&[])?;
        ran.expect_code(0)?;
        ensure!(count(&ran, "applied")? == MANY, "{}", ran.told());
        for target in &mut targets {
            target.expect_all(&marked.pair.fixture.asks, Side::New)?;
        }
        let again = marked.apply_all(&[])?;
        ensure!(count(&again, "nothing to do")? == MANY, "{}", again.told());
        let back = marked.revert_all()?;
        back.expect_code(0)?;
        ensure!(count(&back, "reverted")? == MANY, "{}", back.told());
        for target in &mut targets {
            target.expect_all(&marked.pair.fixture.asks, Side::Old)?;
        }
        before.expect_same()
    })
}

/// Whatever one process shows of a file that it has mapped, and though it is looked at first, the others that run the
/// same file are found.
#[test]
fn one_process_hides_no_other() -> Result<()> {
    in_workdir("pretender", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let pretender = compile_program(dir, "pretender")?;
        let program = marked.pair.base.display().to_string();
        let pretender = Target::start(&pretender, &[program])?;
        let mut target = marked.pair.start()?;
        ensure!(pretender.pid() < target.pid(), "it is not looked at first");
        let status = invivo(&["status", &marked.patch.display().to_string(), "--json"])?;
        let json = status.expect_code(0)?.json("invivo.status/1")?;
        let all = json["processes"].as_array().cloned().unwrap_or_default();
        let pids: Vec<_> = all.iter().map(|process| &process["pid"]).collect();
        ensure!(pids == [target.pid()], "{}", status.told());
        let ran = marked.apply_all(&[])?;
        ran.expect_code(0)?;
        ensure!(count(&ran, "applied")? == 1, "{}", ran.told());
        target.expect_all(&marked.pair.fixture.asks, Side::New)
    })
}

/// A child that runs in its parent's memory is patched with it, and is none to be patched on its own.
#[test]
fn a_vfork_child_is_no_process_of_its_own() -> Result<()> {
    in_workdir("lent", |dir| {
        let marked = marked(dir, "lent.c", &[])?;
        let mut target = marked.pair.start()?;
        let pid = target.pid();
        let child: u32 = target.ask("lend")?.parse().context("no child")?;
        let patch = marked.patch.display().to_string();
        let named = ["-p", &child.to_string(), "--timeout", "1"];
        for command in [["apply", &patch], ["revert", &marked.name]] {
            let ran = invivo(&[&command[..], &named].concat())?;
            ran.expect_failure(3, &["memory of process", &pid.to_string()])?;
        }
        for (done, ran) in [
            ("applied", marked.apply_all(&[])?),
            ("reverted", marked.revert_all()?),
            ("applied", marked.apply_all(&[])?),
        ] {
            ran.expect_code(0)?;
            let all = outcomes(&ran)?;
            let told: Vec<_> = all.iter().map(|one| (&one["pid"], &one["state"])).collect();
            ensure!(told == [(&pid.into(), &done.into())], "{}", ran.told());
        }
        target.expect_all(&marked.pair.fixture.asks, Side::New)?;
        target.expect("end", "7")
    })
}

/// A process goes on without the thread that it began with.
#[test]
fn the_first_thread_has_ended() -> Result<()> {
    in_workdir("headless", |dir| {
        let marked = marked(dir, "headless.c", &[])?;
        let mut target = marked.pair.start()?;
        let (pid, patch) = (target.pid(), &marked.patch);
        wait_for("the end of its first thread", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            Ok(stat.contains(") Z "))
        })?;
        let asks = &marked.pair.fixture.asks;
        for consistency in ["entry", "quiescent"] {
            target.expect_all(asks, Side::Old)?;
            apply(patch, pid, &["--consistency", consistency])?.expect_state("applied")?;
            target.expect_all(asks, Side::New)?;
            let status = invivo(&["status", &patch.display().to_string(), "--json"])?;
            let json = status.expect_code(0)?.json("invivo.status/1")?;
            let one = &json["processes"][0];
            ensure!(
                one["pid"] == pid && one["state"] == "applied",
                "{}",
                status.told()
            );
            ensure!(one["reason"].is_null(), "{}", status.told());
            ensure!(listed(pid)?.len() == 1, "it is not listed");
            revert(None, pid)?.expect_state("reverted")?;
        }
        let ran = marked.apply_all(&[])?;
        ran.expect_code(0)?;
        ensure!(count(&ran, "applied")? == 1, "{}", ran.told());
        target.expect_all(asks, Side::New)?;
        let by_name = invivo(&[
            "revert",
            "--exe",
            &marked.pair.base.display().to_string(),
            "--yes",
        ])?;
        by_name.expect_code(0)?;
        target.expect_all(asks, Side::Old)
    })
}

/// What changes many processes is started for many, not for each.
#[test]
fn deputies_are_few() -> Result<()> {
    const MANY: usize = 40;
    in_workdir("deputies", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let targets = (0..MANY).map(|_| marked.pair.start());
        let targets = targets.collect::<Result<Vec<_>>>()?;
        let patch = marked.patch.display().to_string();
        let done = work(&["apply", &patch, "--all"])?;
        println!("{done:?}");
        // Eleven on two processors, and more where more share the work; each time that a thread is held would be 80.
        ensure!((1..=30).contains(&done.deputies), "{done:?}");
        ensure!(done.calls <= 500 * MANY, "{done:?}");
        for target in &targets {
            ensure!(listed(target.pid())?.len() == 1, "process {}", target.pid());
        }
        Ok(())
    })
}

/// What tools that were killed left in several processes is settled at once, and no other process is touched.
#[test]
fn recover_reaches_every_process_that_needs_it() -> Result<()> {
    in_workdir("recover-all", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let patch = marked.patch.display().to_string();
        let mut targets = Vec::new();
        for _ in 0..3 {
            targets.push(marked.pair.start()?);
        }
        let before: Vec<Snapshot> = targets
            .iter()
            .map(|target| Snapshot::of(target.pid()))
            .collect::<Result<_>>()?;
        for target in &targets[..2] {
            let pid = target.pid().to_string();
            for step in 0.. {
                let killed = killed_before(&["apply", &patch, "-p", &pid], step, Whom::Everything)?;
                ensure!(killed, "at no step anything was left over");
                let left = listed(target.pid())?;
                if left.iter().any(|patch| patch["state"] == "switching") {
                    break;
                }
            }
        }
        let ran = invivo(&["recover", "--all", "--json"])?;
        ran.expect_code(0)?;
        let told = outcomes(&ran)?;
        let told_of = |target: &Target| told.iter().any(|one| one["pid"] == target.pid());
        let reached: Vec<bool> = targets.iter().map(told_of).collect();
        ensure!(reached == [true, true, false], "{}", ran.told());
        for (target, before) in targets.iter_mut().zip(&before) {
            let live = listed(target.pid())?;
            ensure!(
                live.iter().all(|patch| patch["state"] == "applied"),
                "{live:?}"
            );
            let side = if live.is_empty() {
                Side::Old
            } else {
                Side::New
            };
            target.expect_all(&marked.pair.fixture.asks, side)?;
            revert(None, target.pid())?.expect_code(0)?;
            target.expect_all(&marked.pair.fixture.asks, Side::Old)?;
            before.expect_same()?;
        }
        let again = outcomes(&invivo(&["recover", "--all", "--json"])?)?;
        let left = again
            .iter()
            .any(|one| targets.iter().any(|target| one["pid"] == target.pid()));
        ensure!(!left, "something was left over: {again:?}");
        Ok(())
    })
}

/// One process of several is in the way: the others are done, and the sum says what is not.
#[test]
fn partial_failure_is_told_as_such() -> Result<()> {
    in_workdir("partial", |dir| {
        let marked = marked(dir, "stayer.c", &[])?;
        let mut free = marked.pair.start()?;
        free.expect("release", "10")?;
        let mut blocked = marked.pair.start()?;
        let ran = marked.apply_all(&["--consistency", "quiescent", "--timeout", "1"])?;
        ran.expect_failure(3, &["1 of 2 processes", "dwell"])?;
        ensure!(
            count(&ran, "applied")? == 1 && count(&ran, "blocked")? == 1,
            "{}",
            ran.told()
        );
        free.expect("price", "new 12")?;
        blocked.expect("price", "old 10")?;
        blocked.expect("release", "10")?;
        let ran = marked.apply_all(&["--consistency", "quiescent"])?;
        ran.expect_code(0)?;
        ensure!(
            count(&ran, "applied")? == 1 && count(&ran, "nothing to do")? == 1,
            "{}",
            ran.told()
        );
        marked.revert_all()?.expect_code(0)?;
        blocked.expect("price", "old 10")
    })
}

/// Thousands of children that live for a millisecond, while the tool walks all processes: none makes it fail, none
/// sees anything but old or new, and once it has ended all see the same.
#[test]
fn thousands_of_short_lived_processes() -> Result<()> {
    in_workdir("brood", |dir| {
        let marked = marked(dir, "brood.c", &[])?;
        let mut target = marked.pair.start()?;
        let mut rounds = 0;
        while rounds < 5 || target.ask("born")?.parse::<u64>()? < 3000 {
            marked.apply_all(&["--timeout", "30"])?.expect_code(0)?;
            only(&mut target, false).with_context(|| format!("after apply {rounds}"))?;
            marked.revert_all()?.expect_code(0)?;
            only(&mut target, true).with_context(|| format!("after revert {rounds}"))?;
            rounds += 1;
        }
        target.expect("strange", "0")
    })
}

// Children that were born after the tool had ended, and the few that were alive then, see one side.
fn only(target: &mut Target, old: bool) -> Result<()> {
    target.expect("price", if old { "10" } else { "12" })?;
    sleep(Duration::from_millis(100));
    target.expect("reset", "ok")?;
    let mut counts = String::from("0 0");
    // Under load it may take long until the next child gets a processor.
    while counts == "0 0" {
        sleep(Duration::from_millis(50));
        counts = target.ask("counts")?;
    }
    let (seen_old, seen_new) = counts.split_once(' ').context("two counts")?;
    let (right, wrong) = if old {
        (seen_old, seen_new)
    } else {
        (seen_new, seen_old)
    };
    ensure!(
        wrong == "0" && right != "0",
        "old and new were seen {counts} times"
    );
    Ok(())
}

/// A process that starts while others are being patched is not forgotten.
#[test]
fn processes_that_start_meanwhile() -> Result<()> {
    in_workdir("meanwhile", |dir| {
        let marked = marked(dir, "stayer.c", &[])?;
        // The first one blocks for a second, and the other starts in that time.
        let _blocked = marked.pair.start()?;
        let quiescent = ["--consistency", "quiescent", "--timeout", "2"];
        let (ran, mut late) = std::thread::scope(|scope| {
            let tool = scope.spawn(|| marked.apply_all(&quiescent));
            sleep(Duration::from_millis(700));
            let mut late = marked.pair.start()?;
            late.expect("release", "10")?;
            let ran = tool
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of the test ended"))??;
            Ok::<_, anyhow::Error>((ran, late))
        })?;
        ran.expect_code(3)?;
        ensure!(
            count(&ran, "applied")? == 1 && count(&ran, "blocked")? == 1,
            "{}",
            ran.told()
        );
        late.expect("price", "new 12")
    })
}

// Starts the base through a command, patches every process of it and takes it back.
fn elsewhere(dir: &Path, marked: &Marked, command: Command) -> Result<()> {
    let mut target = Target::start_command(command, &dir.join("target"))?;
    let ran = marked.apply_all(&[])?;
    ran.expect_code(0)?;
    ensure!(count(&ran, "applied")? == 1, "{}", ran.told());
    target.expect_all(&marked.pair.fixture.asks, Side::New)?;
    let pid = outcomes(&ran)?[0]["pid"].as_u64().context("no number")?;
    let back = marked.revert_all()?;
    ensure!(count(&back, "reverted")? == 1, "{}", back.told());
    ensure!(outcomes(&back)?[0]["pid"] == pid, "{}", back.told());
    target.expect_all(&marked.pair.fixture.asks, Side::Old)
}

// An ordinary user makes namespaces inside a user namespace of his own.
fn unshare(more: &[&str]) -> Result<Command> {
    let mut command = Command::new("unshare");
    if !am_root()? {
        command.arg("--map-root-user");
    }
    command.args(more);
    Ok(command)
}

/// Its own process numbers and its own mounts: it is found and patched from outside.
#[test]
fn another_pid_and_mount_namespace() -> Result<()> {
    in_workdir("namespace", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let mut command = unshare(&["--pid", "--fork", "--mount", "--mount-proc", "--kill-child"])?;
        command.arg(&marked.pair.base);
        elsewhere(dir, &marked, command)
    })
}

/// A file system that is no longer there under the name that the process knows.
#[test]
fn a_mount_that_only_the_process_sees() -> Result<()> {
    in_workdir("own-mount", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let place = dir.join("only-there");
        std::fs::create_dir(&place)?;
        let mut command = unshare(&["--mount"])?;
        let script =
            "mount -t tmpfs tmpfs \"$1\" && cp \"$0\" \"$1\"/program && exec \"$1\"/program";
        command
            .args(["sh", "-c", script])
            .arg(&marked.pair.base)
            .arg(&place);
        elsewhere(dir, &marked, command)
    })
}

/// A user namespace in which the process is root, though outside it is not.
#[test]
fn user_namespace() -> Result<()> {
    in_workdir("user-namespace", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user"])
            .arg(&marked.pair.base);
        elsewhere(dir, &marked, command)
    })
}

/// Its root is a folder that holds nothing but the program.
#[test]
fn chroot() -> Result<()> {
    in_workdir("chroot", |dir| {
        let marked = marked(dir, "greeting.c", &["-static"])?;
        let root = dir.join("root");
        std::fs::create_dir(&root)?;
        std::fs::copy(&marked.pair.base, root.join("program"))?;
        let mut command = Command::new("chroot");
        if !am_root()? {
            command = Command::new("unshare");
            command.args(["--map-root-user", "chroot"]);
        }
        command.arg(&root).arg("/program");
        elsewhere(dir, &marked, command)
    })
}
