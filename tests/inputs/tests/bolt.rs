//! Programs that BOLT wrote anew after they were linked: functions in several sections, jump
//! tables moved, the first versions of all of it left behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use input_tests::compare::{expect, image};
use input_tests::layout::{Compiler, Kind, Layout};
use input_tests::program::{CLASSES, PLAIN, Program, Version};
use input_tests::tool::{Workdir, run};

/// What rustc's own builds tell it to do.
const REWRITE: [&str; 8] = [
    "-lite",
    "-update-debug-sections",
    "-reorder-blocks=ext-tsp",
    "-reorder-functions=cdsort",
    "-split-functions",
    "-split-strategy=cdsplit",
    "-split-all-cold",
    "-jump-tables=move",
];

/// BOLT looks for its own library beside the place that it is started from.
fn bolt() -> Result<Command> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .map(|folder| folder.join("llvm-bolt-19"))
        .find(|path| path.is_file());
    let found = found.context("llvm-bolt-19 is missing\n\nhint: cargo xtask test installs it")?;
    Ok(Command::new(found.canonicalize()?))
}

/// Links a version, lets the base run with BOLT's counters, and rewrites it by what these say.
fn rewritten(program: &Program, layout: &Layout, work: &Path) -> Result<[PathBuf; 2]> {
    let profile = work.join("profile");
    let both = [Version::Base, Version::Fixed].map(|version| -> Result<PathBuf> {
        let objects = program.compile(layout, version, work)?;
        let linked = work.join(version.folder()).join("linked");
        program.link(layout, &objects, &["-Wl,--emit-relocs"], &linked)?;
        if version == Version::Base {
            let counting = linked.with_extension("counting");
            let mut command = bolt()?;
            command
                .arg(&linked)
                .args(["-instrument", "-o"])
                .arg(&counting);
            command.arg(format!("-instrumentation-file={}", profile.display()));
            run(&mut command)?;
            // What it returns is its own business.
            Command::new(&counting).arg("c").output()?;
        }
        let out = linked.with_extension("bolt");
        let mut command = bolt()?;
        command
            .arg(&linked)
            .args(REWRITE)
            .arg("-data")
            .arg(&profile);
        run(command.arg("-o").arg(&out))?;
        Ok(out)
    });
    let [base, fixed] = both;
    Ok([base?, fixed?])
}

fn hold(program: &Program, compiler: Compiler, kind: Kind) {
    let all = || -> Result<()> {
        let work = Workdir::new("bolt")?;
        let layout = Layout {
            kind,
            // BOLT splits functions itself, and does not correct the tables of those that gcc
            // split already: their exceptions have no types any more.
            debug: match compiler {
                Compiler::Gcc => &["-g", "-fno-reorder-blocks-and-partition"],
                Compiler::Clang => &["-g"],
            },
            ..Layout::usual(compiler)
        };
        let [base, fixed] = rewritten(program, &layout, work.path())?;
        let rewritten = image(&base)?;
        let left = rewritten.section_named(".bolt.org.text");
        ensure!(left.is_some(), "nothing was moved");
        expect(&base, &base, &[]).context("with itself")?;
        expect(&base, &fixed, &program.changes()?).context("with the fix")
    };
    let wrong = all().err().map(|error| format!("{error:#}"));
    let wrong = wrong.unwrap_or_default();
    assert!(wrong.is_empty(), "{compiler:?} {kind:?}\n{wrong}");
}

#[test]
fn c_after_bolt() {
    for compiler in [Compiler::Gcc, Compiler::Clang] {
        for kind in [Kind::Pie, Kind::Fixed] {
            hold(&PLAIN, compiler, kind);
        }
    }
}

#[test]
fn cpp_after_bolt() {
    for compiler in [Compiler::Gcc, Compiler::Clang] {
        for kind in [Kind::Pie, Kind::Fixed] {
            hold(&CLASSES, compiler, kind);
        }
    }
}
