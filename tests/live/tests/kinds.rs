//! Every form that a program can have on disk and in memory.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::{Build, tool};
use live_tests::invivo;
use live_tests::invivo::apply;
use live_tests::pair::Pair;
use live_tests::round_trip::{round_trip, round_trip_as, round_trip_with, there_and_back};
use live_tests::target::{Side, Target};
use live_tests::unharmed::am_root;
use live_tests::workdir::in_workdir;

const PIE: Build<'static> = form(&["-fPIE", "-pie"]);
const NO_PIE: Build<'static> = form(&["-fno-pie", "-no-pie"]);
const STATIC: Build<'static> = form(&["-static"]);
const STATIC_PIE: Build<'static> = form(&["-static-pie", "-fPIE"]);
const MUSL: Build<'static> = Build {
    compiler: Some("musl-gcc"),
    flags: &["-static"],
};
const MUSL_DYNAMIC: Build<'static> = Build {
    compiler: Some("musl-gcc"),
    flags: &[],
};
const HARDENED: Build<'static> = form(&[
    "-fPIE",
    "-pie",
    "-Wl,-z,relro,-z,now",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
]);

const fn form(flags: &'static [&'static str]) -> Build<'static> {
    Build {
        compiler: None,
        flags,
    }
}

/// Without the tool: each form compiles, and both versions answer as they should.
#[test]
fn forms_behave() -> Result<()> {
    for build in [
        PIE,
        NO_PIE,
        STATIC,
        STATIC_PIE,
        MUSL,
        MUSL_DYNAMIC,
        HARDENED,
    ] {
        in_workdir("forms", |dir| {
            let pair = Pair::build(dir, "greeting.c", build)?;
            pair.start()?.expect_all(&pair.fixture.asks, Side::Old)?;
            Target::start(&pair.fixed, &pair.fixture.args)?
                .expect_all(&pair.fixture.asks, Side::New)
        })
        .with_context(|| format!("{build:?}"))?;
    }
    Ok(())
}

/// The usual form today: the program may lie anywhere.
#[test]
fn position_independent() -> Result<()> {
    round_trip_as("greeting.c", PIE)
}

/// Fixed addresses below 4 GiB: code holds them as immediates, and patch memory must be found within reach.
#[test]
fn not_position_independent() -> Result<()> {
    round_trip_as("greeting.c", NO_PIE)
}

/// No dynamic linker, no procedure linkage table, libc inside the image.
#[test]
fn statically_linked() -> Result<()> {
    round_trip_as("greeting.c", STATIC)
}

/// Relocated by its own start code, with nobody's list of loaded images.
#[test]
fn statically_linked_position_independent() -> Result<()> {
    round_trip_as("greeting.c", STATIC_PIE)
}

/// Another libc: other start code, other thread-locals, and in a static program
/// without handlers no code that returns from signals.
#[test]
fn musl() -> Result<()> {
    round_trip_with("greeting.c", MUSL, &["entry"])
}

/// Its loader and its libc are one file.
#[test]
fn musl_dynamic() -> Result<()> {
    round_trip_with("greeting.c", MUSL_DYNAMIC, &["entry"])
}

/// A static musl program has no unwind data: whether a thread is inside the old code
/// cannot be proved there, and what is not proved is refused.
#[test]
fn quiescence_without_unwind_data() -> Result<()> {
    in_workdir("unproved", |dir| {
        let pair = Pair::build(dir, "greeting.c", MUSL)?;
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        let arguments = ["--consistency", "quiescent", "--timeout", "1"];
        let refused = apply(&patch, target.pid(), &arguments)?;
        refused.expect_failure(3, &["not proved"])?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

/// Read-only relocations, stack protector and stack clash probes, as distributions build.
#[test]
fn hardened() -> Result<()> {
    round_trip_as("greeting.c", HARDENED)
}

/// The image to patch is a library that the program is linked with.
#[test]
fn shared_library() -> Result<()> {
    round_trip("linked.c")
}

/// The image to patch came late, by dlopen. The first question makes the program load it.
#[test]
fn library_loaded_by_dlopen() -> Result<()> {
    round_trip("opened.c")
}

/// Virtual functions keep their slot, exceptions pass through new frames, types stay the same type.
#[test]
fn cpp_with_virtual_function_and_exception() -> Result<()> {
    round_trip("virtual.cpp")
}

/// A panic passes through a new frame and is caught in the base.
#[test]
fn rust_with_std_and_panic() -> Result<()> {
    round_trip("panics.rs")
}

/// As distributions ship: what runs has no symbols, they lie in a file of their own.
#[test]
fn stripped_with_separate_debug_file() -> Result<()> {
    in_workdir("stripped", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        let mut debug = Vec::new();
        for program in [&pair.base, &pair.fixed] {
            let file = program.with_extension("debug");
            let mut keep = Command::new("objcopy");
            keep.arg("--only-keep-debug").arg(program).arg(&file);
            tool(keep)?;
            let mut strip = Command::new("strip");
            strip.arg(program);
            tool(strip)?;
            debug.push(file.display().to_string());
        }
        let mut target = pair.start()?;
        let patch = dir.join("fix.patch");
        let flags = [
            "--name",
            "fix",
            "--base-debug",
            &debug[0],
            "--fixed-debug",
            &debug[1],
        ];
        invivo::build(&pair.base, &pair.fixed, &patch, &flags)?;
        there_and_back(&pair, &patch, &mut target)
    })
}

/// After an upgrade the file of the running program is another one, or none: what runs is what counts.
#[test]
fn program_file_deleted_or_replaced() -> Result<()> {
    for replaced in [false, true] {
        in_workdir("replaced", |dir| {
            let pair = Pair::build(dir, "greeting.c", Build::default())?;
            let patch = pair.patch()?;
            let mut target = pair.start()?;
            std::fs::remove_file(&pair.base)?;
            if replaced {
                std::fs::copy(&pair.fixed, &pair.base)?;
            }
            there_and_back(&pair, &patch, &mut target)
        })
        .with_context(|| format!("replaced: {replaced}"))?;
    }
    Ok(())
}

/// Code in huge pages of anonymous memory: there is no file whose pages could be swapped in, so the hooks are written where
/// the code is, while all threads stand, and the pages stay huge.
#[test]
fn code_in_huge_pages() -> Result<()> {
    in_workdir("huge", |dir| {
        let pair = Pair::build(dir, "huge.c", Build::default())?;
        let patch = pair.patch()?;
        let mut target = pair.start()?;
        there_and_back(&pair, &patch, &mut target)?;
        // The program compares its own code with what it was at the start.
        target.expect("code", "same")?;
        let outcome = apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        ensure!(outcome["switch"] == "stopped", "{outcome}");
        target.expect("code", "changed")?;
        target.expect_all(&pair.fixture.asks, Side::New)?;
        invivo::revert(None, target.pid())?.expect_state("reverted")?;
        target.expect("code", "same")
    })
}

/// Reserved huge pages below a folder, as long as this lives.
struct Reserved<'d>(&'d Path);

/// How many may be taken that were not set aside before.
const OVERCOMMIT: &str = "/proc/sys/vm/nr_overcommit_hugepages";

impl<'d> Reserved<'d> {
    fn at(folder: &'d Path) -> Result<Self> {
        std::fs::create_dir(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "hugetlbfs", "none"]).arg(folder);
        let mounted = mount.output()?;
        ensure!(mounted.status.success(), "{mounted:?}");
        let reserved = Self(folder);
        let before: u64 = std::fs::read_to_string(OVERCOMMIT)?.trim().parse()?;
        std::fs::write(OVERCOMMIT, (before + 4).to_string())?;
        Ok(reserved)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
        let before = std::fs::read_to_string(OVERCOMMIT).unwrap_or_default();
        if let Ok(now) = before.trim().parse::<u64>() {
            let _ = std::fs::write(OVERCOMMIT, now.saturating_sub(4).to_string());
        }
    }
}

/// Code in a file of reserved huge pages, which only root can make: its pages cannot be moved in parts, so all threads
/// stand, and the plan says so. The same code in the program's own file is swapped.
#[test]
fn code_in_reserved_huge_pages() -> Result<()> {
    in_workdir("reserved", |dir| {
        let pair = Pair::build(dir, "reserved.c", Build::default())?;
        let patch = pair.patch()?;
        let switched = |target: &mut Target, how: &str| {
            let (file, pid) = (patch.display().to_string(), target.pid());
            let plan = invivo::invivo(&["plan", &file, "-p", &pid.to_string()])?;
            let stands = plan
                .expect_code(0)?
                .stdout
                .contains("or lies in huge pages");
            ensure!(stands == (how == "stopped"), "{}", plan.told());
            let outcome = apply(&patch, pid, &[])?.expect_state("applied")?;
            ensure!(outcome["switch"] == how, "{outcome}");
            target.expect_all(&pair.fixture.asks, Side::New)?;
            invivo::revert(None, pid)?.expect_state("reverted")?;
            target.expect_all(&pair.fixture.asks, Side::Old)
        };
        switched(&mut pair.start()?, "page swap")?;
        if am_root()? {
            let folder = dir.join("huge");
            let _reserved = Reserved::at(&folder)?;
            let file = folder.join("code").display().to_string();
            let mut target = Target::start(&pair.base, &[file])?;
            switched(&mut target, "stopped")?;
        }
        Ok(())
    })
}
