//! Processes that are chosen by what they are, and by how far they are gone back.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::binary;
use live_tests::group::Group;
use live_tests::invivo::{invivo, listed};
use live_tests::marked::{Marked, marked};
use live_tests::run::Ran;
use live_tests::target::{Side, Target};
use live_tests::unharmed::am_root;
use live_tests::workdir::in_workdir;

// Two processes of one program, one of them under another name on disk.
fn two(body: impl FnOnce(&Path, &Marked, &mut Target, &mut Target) -> Result<()>) -> Result<()> {
    in_workdir("chosen", |dir| {
        let marked = marked(dir, "greeting.c", &[])?;
        let other = dir.join("other-name");
        std::fs::copy(&marked.pair.base, &other)?;
        let mut first = marked.pair.start()?;
        let mut second = Target::start(&other, &marked.pair.fixture.args)?;
        body(dir, &marked, &mut first, &mut second)
    })
}

fn pids(ran: &Ran) -> Result<Vec<u64>> {
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).with_context(|| ran.told())?;
    let all = json["processes"].as_array().cloned().unwrap_or_default();
    Ok(all.iter().filter_map(|one| one["pid"].as_u64()).collect())
}

// Plan, apply, status and revert reach just `chosen`.
fn reaches(marked: &Marked, words: &[&str], chosen: &mut Target, other: &mut Target) -> Result<()> {
    let patch = marked.patch.display().to_string();
    let asks = &marked.pair.fixture.asks;
    let pid = u64::from(chosen.pid());
    let run = |first: &[&str], more: &[&str]| invivo(&[first, words, more, &["--json"]].concat());
    for look in ["plan", "status"] {
        let ran = run(&[look, &patch], &[])?;
        ensure!(
            pids(ran.expect_code(0)?)? == [pid],
            "{look}: {}",
            ran.told()
        );
    }
    let ran = run(&["apply", &patch, "--dry-run"], &[])?;
    ensure!(pids(ran.expect_code(0)?)? == [pid], "{}", ran.told());
    // Nobody can be asked here whether these processes are meant.
    run(&["apply", &patch], &[])?.expect_failure(2, &["1 process", "--yes"])?;
    chosen.expect_all(asks, Side::Old)?;
    let ran = run(&["apply", &patch], &["--yes"])?;
    ensure!(pids(ran.expect_code(0)?)? == [pid], "{}", ran.told());
    chosen.expect_all(asks, Side::New)?;
    other.expect_all(asks, Side::Old)?;
    run(&["revert", &marked.name], &[])?.expect_failure(2, &["--yes"])?;
    let ran = run(&["revert", &marked.name], &["--yes"])?;
    ensure!(pids(ran.expect_code(0)?)? == [pid], "{}", ran.told());
    chosen.expect_all(asks, Side::Old)?;
    ensure!(listed(chosen.pid())?.is_empty(), "still listed");
    Ok(())
}

/// By the program that they run, its name or its file.
#[test]
fn by_program() -> Result<()> {
    two(|dir, marked, first, second| {
        let exe = marked.pair.base.display().to_string();
        reaches(marked, &["--exe", &exe], first, second)?;
        let link = dir.join("link");
        std::os::unix::fs::symlink(dir.join("other-name"), &link)?;
        reaches(
            marked,
            &["--exe", &link.display().to_string()],
            second,
            first,
        )
    })
}

/// By a pattern of their names; of two kinds of pattern both must hold.
#[test]
fn by_name() -> Result<()> {
    two(|_, marked, first, second| {
        reaches(marked, &["--comm", "other-*"], second, first)?;
        reaches(
            marked,
            &["--comm", "gree*ng", "--comm", "none"],
            first,
            second,
        )?;
        let exe = marked.pair.base.display().to_string();
        let patch = marked.patch.display().to_string();
        let both = ["apply", &patch, "--exe", &exe, "--comm", "other-*", "--yes"];
        invivo(&both)?.expect_failure(6, &["no process that it concerns"])?;
        Ok(())
    })
}

/// By an image that they have loaded, whose file need not be there.
#[test]
fn by_build_id() -> Result<()> {
    two(|_, marked, first, second| {
        let patch = marked.patch.display().to_string();
        let ran = invivo(&["status", &patch, "--json"])?;
        let json: serde_json::Value = serde_json::from_str(&ran.stdout)?;
        let id = json["processes"][0]["build_id"]
            .as_str()
            .context("no build id")?;
        let ran = invivo(&["status", "--build-id", id, "--json"])?;
        let mut both = [u64::from(first.pid()), u64::from(second.pid())];
        both.sort_unstable();
        ensure!(pids(&ran)? == both, "{}", ran.told());
        let ran = invivo(&["apply", &patch, "--build-id", id, "--yes", "--json"])?;
        ensure!(pids(ran.expect_code(0)?)? == both, "{}", ran.told());
        let ran = invivo(&["revert", "--build-id", id, "--yes", "--json"])?;
        ensure!(pids(ran.expect_code(0)?)? == both, "{}", ran.told());
        let strange = ["apply", &patch, "--build-id", "0123456789abcdef", "--yes"];
        invivo(&strange)?.expect_failure(6, &["no process that it concerns"])?;
        invivo(&["status", "--build-id", "xyz"])?.expect_code(2)?;
        Ok(())
    })
}

/// By the unit of the service manager, which is a control group; an ordinary user can make none.
#[test]
fn by_unit() -> Result<()> {
    two(|_, marked, first, second| {
        let patch = marked.patch.display().to_string();
        let unit = format!("invivo-{}", std::process::id());
        let none = ["apply", &patch, "--unit", &unit, "--yes"];
        invivo(&none)?.expect_failure(6, &["no process that it concerns"])?;
        if !am_root()? {
            return Ok(());
        }
        let group = Group::new(&format!("{unit}.service"))?;
        group.take(second.pid())?;
        reaches(marked, &["--unit", &unit], second, first)?;
        reaches(marked, &["--unit", &format!("{unit}.serv*")], second, first)
            .err()
            .context("what is no kind of unit was taken for one")?;
        reaches(
            marked,
            &["--unit", "invivo-*.service", "--comm", "other*"],
            second,
            first,
        )
    })
}

/// On a terminal the processes are shown, and a question is asked.
#[test]
fn asked_on_a_terminal() -> Result<()> {
    two(|_, marked, first, second| {
        let asks = &marked.pair.fixture.asks;
        let tool = binary::invivo()?.display().to_string();
        let patch = marked.patch.display().to_string();
        let command = format!("{tool} apply {patch} --comm 'other-*'");
        let answered = |answer: &str| -> Result<Ran> {
            // script gives the tool a terminal of its own.
            let mut shell = Command::new("sh");
            shell.args([
                "-c",
                "printf \"$0\\n\" | script -qec \"$1\" /dev/null",
                answer,
                &command,
            ]);
            live_tests::invivo::invivo_through(shell)
        };
        let no = answered("n")?;
        ensure!(
            no.stdout.contains("apply it in 1 process? [y/N]"),
            "{}",
            no.told()
        );
        ensure!(no.stdout.contains("other-name"), "{}", no.told());
        second.expect_all(asks, Side::Old)?;
        let yes = answered("y")?;
        yes.expect_code(0)?;
        second.expect_all(asks, Side::New)?;
        first.expect_all(asks, Side::Old)
    })
}

/// How long each step took, and which steps were made.
#[test]
fn steps_are_told() -> Result<()> {
    two(|_, marked, first, _| {
        let (patch, pid) = (marked.patch.display().to_string(), first.pid().to_string());
        let ran = invivo(&["apply", &patch, "-p", &pid, "--time"])?;
        ran.expect_code(0)?;
        for step in ["settle", "check", "prepare", "switch", "all"] {
            ensure!(
                ran.stderr
                    .contains(&format!(" ms  process {pid}: {step}\n")),
                "{}",
                ran.told()
            );
        }
        let ran = invivo(&["-v", "revert", "-p", &pid])?;
        ran.expect_code(0)?;
        ensure!(
            ran.stderr
                .contains(&format!("process {pid}: settle, switch")),
            "{}",
            ran.told()
        );
        Ok(())
    })
}

/// A name that nobody holds is a mistake, and not success; what went back can come again in every process.
#[test]
fn by_name_of_the_patch() -> Result<()> {
    two(|_, marked, first, second| {
        let (pid, asks) = (first.pid().to_string(), &marked.pair.fixture.asks);
        let unknown = format!("no process holds a patch called not-{}", marked.name);
        let wrong = format!("not-{}", marked.name);
        marked.apply_all(&[])?.expect_code(0)?;
        for words in [
            &["revert", &wrong, "--all"][..],
            &["revert", "--to", &wrong, "--all"],
        ] {
            // What there is, is named.
            invivo(words)?.expect_failure(1, &[&unknown, &marked.name])?;
        }
        let here = format!(
            "holds no patch called {wrong}; what is there: {}",
            marked.name
        );
        invivo(&["revert", &wrong, "-p", &pid])?.expect_failure(1, &[&here])?;
        first.expect_all(asks, Side::New)?;
        marked.revert_all()?.expect_code(0)?;
        // It is no mistake when all of them were taken back before.
        let again = marked.revert_all()?;
        again.expect_code(0)?;
        let to = invivo(&["revert", "--to", &marked.name, "--all", "--json"])?;
        let mut both = [first.pid(), second.pid()].map(u64::from);
        both.sort_unstable();
        ensure!(pids(to.expect_code(0)?)? == both, "{}", to.told());
        first.expect_all(asks, Side::New)?;
        second.expect_all(asks, Side::New)?;
        marked.revert_all()?.expect_code(0)?;
        Ok(())
    })
}
