//! Patches of programs whose build tree is at hand: of the object files of both builds, and the program that runs, which
//! was linked of the base's. Nothing is linked a second time.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::{Build, Version, compile_objects};
use live_tests::invivo::{self, invivo};
use live_tests::pair::Pair;
use live_tests::round_trip::{CONSISTENCIES, there_and_back_with};
use live_tests::workdir::in_workdir;

/// Builds the patch from the object files in the folders `base` and `fixed`.
fn words<'w>(base: &'w str, fixed: &'w str, program: &'w str, patch: &'w str) -> Vec<&'w str> {
    let words = ["build", base, fixed, "--program", program, "-o", patch];
    [&words[..], &["--name", "fix"]].concat()
}

fn round_trip(source: &str, build: Build<'_>) -> Result<()> {
    round_trip_with(source, build, &CONSISTENCIES)
}

fn round_trip_with(source: &str, build: Build<'_>, consistencies: &[&str]) -> Result<()> {
    in_workdir("objects", |dir| {
        let pair = Pair::of_objects(dir, source, build)?;
        let patch = dir.join("fix.patch");
        let program = pair.base.display().to_string();
        let more = ["--name", "fix", "--program", &program];
        invivo::build(&dir.join("base/objects"), &pair.fixed, &patch, &more)?;
        let mut target = pair.start()?;
        there_and_back_with(&pair, &patch, &mut target, consistencies)
    })
    .with_context(|| format!("{source} {build:?}"))
}

/// What is refused is refused with these words, and with a remedy.
fn refused(
    source: &str,
    change: impl Fn(&Path, &Pair) -> Result<()>,
    words_told: &[&str],
) -> Result<()> {
    in_workdir("refused-objects", |dir| {
        let pair = Pair::of_objects(dir, source, Build::default())?;
        change(dir, &pair)?;
        let paths = [
            &dir.join("base/objects"),
            &pair.fixed,
            &pair.base,
            &dir.join("fix.patch"),
        ];
        let [base, fixed, program, patch] = paths.map(|path| path.display().to_string());
        invivo(&words(&base, &fixed, &program, &patch))?.expect_failure(1, words_told)?;
        ensure!(
            !Path::new(&patch).exists(),
            "refused, and written all the same"
        );
        Ok(())
    })
    .with_context(|| source.to_owned())
}

/// Three object files, of which one is fixed.
#[test]
fn one_of_three_files() -> Result<()> {
    let flags: [&[&str]; 3] = [&[], &["-fno-pie", "-no-pie"], &["-fno-plt"]];
    for flags in flags {
        let build = Build {
            flags,
            ..Build::default()
        };
        round_trip("several.c", build)?;
    }
    Ok(())
}

#[test]
fn functions_and_their_data() -> Result<()> {
    for source in [
        "greeting.c",
        "new_function.c",
        "jump_table.c",
        "pointer_table.c",
        "tail_call.c",
        "varargs.c",
    ] {
        round_trip(source, Build::default())?;
    }
    // Its caller keeps values in registers that the new function changes, so nobody may be in the caller.
    round_trip_with("struct_return.c", Build::default(), &["quiescent"])?;
    // A variable of a library is found through a slot.
    let build = Build {
        flags: &["-fPIC"],
        ..Build::default()
    };
    round_trip("new_import.c", build)
}

#[test]
fn the_other_compiler() -> Result<()> {
    for source in ["several.c", "new_import.c", "jump_table.c"] {
        let build = Build {
            compiler: Some("clang"),
            ..Build::default()
        };
        round_trip(source, build)?;
    }
    Ok(())
}

/// What only the linker knows, or what other files may do.
#[test]
fn what_object_files_do_not_tell() -> Result<()> {
    let nothing = |_: &Path, _: &Pair| Ok(());
    refused(
        "signature.c",
        nothing,
        &["is called in another way now", "link both builds"],
    )?;
    refused(
        "linked.c",
        nothing,
        &["is a variable of each thread", "link both builds"],
    )
}

/// Two files are called alike, and each has its own `count`. Where the linker left out the one of
/// the file that is fixed, for nothing used it, the other's must not be taken for it.
#[test]
fn another_file_of_the_same_name() -> Result<()> {
    const OWN: &str = "static volatile int count;
        int tick(void) { return ++count; }
        int answer(int a) { return a * 3 + OWN_COUNT; }\n";
    const OTHER: &str = "static volatile int count = 7; int other(void) { return count; }\n";
    for (main, is_used) in [("answer(1)", false), ("answer(1) + tick()", true)] {
        in_workdir("same-name", |dir| {
            let write = |path: &str, text: &str| std::fs::write(dir.join(path), text);
            let cc = |words: &[&str]| {
                let mut cc = Command::new("cc");
                let done = cc.current_dir(dir).args(words).status()?;
                ensure!(done.success(), "cc {words:?}");
                anyhow::Ok(())
            };
            let object = |folder: &str, name: &str, define: &str| {
                let mut cc = Command::new("cc");
                cc.args(["-O2", "-g", "-ffunction-sections", "-fdata-sections"]);
                cc.args(["-c", name, define]).current_dir(dir.join(folder));
                ensure!(cc.status()?.success(), "cc in {folder}");
                anyhow::Ok(())
            };
            for folder in ["own", "other"] {
                std::fs::create_dir(dir.join(folder))?;
            }
            write("own/state.c", OWN)?;
            write("other/state.c", OTHER)?;
            let main = format!(
                "int answer(int); int tick(void); int other(void);
                int main(void) {{ return {main} + other(); }}\n"
            );
            write("main.c", &main)?;
            object("own", "state.c", "-DOWN_COUNT=0")?;
            object("other", "state.c", "-DNONE")?;
            std::fs::rename(dir.join("own/state.o"), dir.join("base.o"))?;
            object("own", "state.c", "-DOWN_COUNT=count")?;
            std::fs::rename(dir.join("own/state.o"), dir.join("fixed.o"))?;
            cc(&[
                "-O2",
                "-g",
                "-Wl,--gc-sections",
                "-Wl,--build-id",
                "main.c",
                "base.o",
                "other/state.o",
                "-o",
                "program",
            ])?;
            let paths = ["base.o", "fixed.o", "program", "fix.patch"];
            let paths = paths.map(|path| dir.join(path).display().to_string());
            let [base, fixed, program, patch] = &paths;
            let ran = invivo(&words(base, fixed, program, patch))?;
            if is_used {
                ran.expect_code(0)?;
            } else {
                ran.expect_failure(1, &["count", "another file's"])?;
            }
            ensure!(Path::new(patch).exists() == is_used);
            Ok(())
        })
        .with_context(|| main)?;
    }
    Ok(())
}

/// The program was linked of something else than the base's object files.
#[test]
fn another_program() -> Result<()> {
    let other = |dir: &Path, pair: &Pair| {
        let build = Build {
            flags: &["-O1"],
            ..Build::default()
        };
        compile_objects(dir, &pair.fixture, Version::Base, build)?;
        compile_objects(dir, &pair.fixture, Version::Fixed, build)?;
        Ok(())
    };
    refused("greeting.c", other, &["program", "R-BUILD"])
}
