//! Every reader fed with hostile input for some minutes, guided by what the input reaches.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use crate::workspace::Workspace;

/// Minutes for each target where none are given.
pub(crate) const MINUTES: &str = "10";

/// What makes the compiler count what is reached; `libfuzzer-sys` reads the counters. It is
/// not the nightly toolchain's alone.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";
/// No input may take more memory than this, in MiB.
const MEMORY: u32 = 1024;
/// Nor longer than this, in seconds.
const SLOWEST: u32 = 20;
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// Runs the targets whose names are given, or all, `minutes` each; what was found is kept
/// below `target/fuzz/found`.
pub(crate) fn run(workspace: &Workspace, minutes: &str, names: &[&str]) -> Result<bool> {
    let minutes: u64 = minutes.parse().context("minutes are a number")?;
    let targets = targets(workspace, names)?;
    let programs = build(workspace)?;
    println!("{} targets, {minutes} min each", targets.len());
    let left = Mutex::new(targets);
    let clean = std::thread::scope(|scope| {
        let worker = || -> Result<bool> {
            let mut clean = true;
            loop {
                let next = left.lock().ok().and_then(|mut left| left.pop());
                let Some(target) = next else { break };
                clean &= one(workspace, &programs, &target, minutes)?;
            }
            Ok(clean)
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(worker)).collect();
        let mut clean = true;
        for worker in workers {
            let ended = worker.join();
            clean &= ended.unwrap_or_else(|_| bail!("a worker of the fuzzer panicked"))?;
        }
        anyhow::Ok(clean)
    })?;
    println!(
        "{}",
        if clean {
            "nothing was found"
        } else {
            "something was found"
        }
    );
    Ok(clean)
}

fn targets(workspace: &Workspace, names: &[&str]) -> Result<Vec<String>> {
    let folder = workspace.root.join("fuzz/fuzz_targets");
    let mut all = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        all.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    all.sort();
    for name in names {
        ensure!(
            all.iter().any(|target| target == name),
            "no such target: {name}; there are {}",
            all.join(", ")
        );
    }
    all.retain(|target| names.is_empty() || names.contains(&target.as_str()));
    Ok(all)
}

/// Builds all of them and returns their folder.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    println!("building the targets");
    let host = process::capture(Command::new("rustc").arg("-vV"), Duration::from_secs(60))?;
    let host = host
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it builds for")?;
    let folder = workspace.target.join("fuzz-coverage");
    let mut cargo = workspace.cargo();
    // Named, so that programs which only take part in the build are built as usual.
    cargo.args(["build", "--quiet", "--target", host]);
    cargo
        .current_dir(workspace.root.join("fuzz"))
        .env("RUSTFLAGS", COVERAGE)
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "2")
        .env("CARGO_TARGET_DIR", &folder);
    ensure!(
        process::succeeds(&mut cargo, BUILD_LIMIT)?,
        "the fuzz targets do not build"
    );
    Ok(folder.join(host).join("debug"))
}

fn one(
    workspace: &Workspace,
    programs: &std::path::Path,
    target: &str,
    minutes: u64,
) -> Result<bool> {
    let place = |kind: &str| workspace.target.join("fuzz").join(kind).join(target);
    let (inputs, found) = (place("inputs"), place("found"));
    for folder in [&inputs, &found] {
        std::fs::create_dir_all(folder)?;
    }
    let mut command = Command::new(programs.join(target));
    command
        .arg(format!("-max_total_time={}", minutes * 60))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-verbosity=1"])
        .arg(&inputs);
    let seeds = workspace.root.join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    command.stdin(Stdio::null());
    let ended = process::capture(&mut command, Duration::from_secs(minutes * 60 + 300))?;
    let passed = ended.status.success();
    let said = |name: &str| {
        let line = ended.stderr.lines().find(|line| line.contains(name));
        line.and_then(|line| line.split_whitespace().last())
            .unwrap_or("?")
            .to_owned()
    };
    // #1234  REDUCE cov: 567 ft: 890 …
    let reached = ended.stderr.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once(" cov: ")?;
        rest.split_whitespace().next()
    });
    println!(
        "{} {target:<10} {:>12} inputs, {:>6} places reached, {:>5} MiB",
        if passed { '✓' } else { '✗' },
        said("number_of_executed_units"),
        reached.unwrap_or("?"),
        said("peak_rss_mb"),
    );
    if !passed {
        println!("    {}", ended.status);
        let last: Vec<&str> = ended.stderr.lines().rev().take(30).collect();
        last.iter().rev().for_each(|line| println!("    {line}"));
    }
    Ok(passed)
}
