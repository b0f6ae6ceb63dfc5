//! The fixtures themselves, without the tool: a scenario whose programs do not behave as they say shows nothing.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::{Build, tool};
use live_tests::fixture::{self, Fixture};
use live_tests::pair::Pair;
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

/// Base and fixed of every fixture compile, answer as they say, twice in a row, and have the functions called hot.
#[test]
fn fixtures_behave() -> Result<()> {
    let fixtures = Fixture::all()?;
    ensure!(
        fixtures.len() > 20,
        "only {} fixtures were found",
        fixtures.len()
    );
    let mut wrong = Vec::new();
    for fixture in &fixtures {
        if let Err(error) = behaves(fixture) {
            wrong.push(format!("{}: {error:#}", fixture.source));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

fn behaves(fixture: &Fixture) -> Result<()> {
    in_workdir(&fixture.name, |dir| {
        let pair = Pair::build(dir, &fixture.source, Build::default())?;
        for (program, side) in [(&pair.base, Side::Old), (&pair.fixed, Side::New)] {
            let mut target = Target::start(program, &fixture.args)?;
            target.expect_all(&fixture.asks, side)?;
            if !fixture.once {
                target
                    .expect_all(&fixture.asks, side)
                    .context("the second time")?;
            }
        }
        let mut nm = Command::new("nm");
        nm.arg(pair.images().1);
        let symbols = tool(nm)?.stdout;
        for name in &fixture.hot {
            ensure!(
                symbols.contains(name.as_str()),
                "there is no function {name}"
            );
        }
        ensure!(
            fixture.refused.is_some() == fixture.hot.is_empty(),
            "either hot functions or a refusal"
        );
        Ok(())
    })
}

/// Every fixture is used by a scenario, and the scenarios use no others.
#[test]
fn every_fixture_has_a_scenario() -> Result<()> {
    let tests = fixture::folder().join("../tests");
    let mut text = String::new();
    for entry in fs::read_dir(&tests)? {
        let path = entry?.path();
        if !path.ends_with("fixtures_behave.rs") {
            text.push_str(&fs::read_to_string(path)?);
        }
    }
    for fixture in Fixture::all()? {
        ensure!(
            text.contains(&format!("\"{}\"", fixture.source)),
            "no scenario uses {}",
            fixture.source
        );
    }
    Ok(())
}

/// The programs that take arguments behave with each that the scenarios give them.
#[test]
fn arguments_behave() -> Result<()> {
    let waits = [
        "read",
        "poll",
        "epoll_wait",
        "futex",
        "nanosleep",
        "accept",
        "sigtimedwait",
        "recv",
        "waitpid",
        "select",
    ];
    let crowds = ["1", "8", "64"];
    for (source, arguments) in [("waits.c", &waits[..]), ("crowd.c", &crowds)] {
        in_workdir(source, |dir| {
            let pair = Pair::build(dir, source, Build::default())?;
            for argument in arguments {
                for (program, side) in [(&pair.base, Side::Old), (&pair.fixed, Side::New)] {
                    let mut target = Target::start(program, &[argument])?;
                    for _ in 0..3 {
                        target
                            .expect_all(&pair.fixture.asks, side)
                            .context(*argument)?;
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
