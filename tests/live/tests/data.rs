//! State lives in the running program and nowhere else; new code works on it, or the patch is refused.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::{Build, tool};
use live_tests::invivo::{self, apply, revert};
use live_tests::memory::{Snapshot, mappings};
use live_tests::pair::Pair;
use live_tests::round_trip::{CONSISTENCIES, refused, round_trip, round_trip_as};
use live_tests::target::{Side, Target};
use live_tests::workdir::in_workdir;

/// Three kinds of static variables go on counting through apply and revert. A second copy of one would start again.
#[test]
fn static_variables_keep_their_storage() -> Result<()> {
    in_workdir("storage", |dir| {
        let pair = Pair::build(dir, "storage.c", Build::default())?;
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        for count in 1..=3 {
            target.expect("bump", &format!("old {count} {count} {count}"))?;
        }
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect("peek", "new 3 3")?;
        target.expect("bump", "new 4 4 4")?;
        target.expect("bump", "new 5 5 5")?;
        revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        target.expect("peek", "old 5 5")?;
        target
            .expect("bump", "old 6 6 6")
            .context("what the patch counted must stay counted")?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect("bump", "new 7 7 7")
    })
}

/// Addresses are keys: those that new code takes must equal those that the base stored, of variables and of functions.
#[test]
fn pointers_compare_equal() -> Result<()> {
    round_trip("identity.c")
}

/// Three threads each have their own variables, initialised ones too, and new code must find the right ones.
#[test]
fn thread_locals_each_their_own() -> Result<()> {
    each_thread_its_own("thread_local.c", &[], None)
}

/// Those of a library that was there at the start, at a fixed distance from each thread's block (initial-exec).
#[test]
fn thread_locals_of_a_library_initial_exec() -> Result<()> {
    let flags = ["-ftls-model=initial-exec"];
    each_thread_its_own("counted.c", &flags, Some("R_X86_64_TPOFF64"))
}

/// Those of a library that asks the loader where they are (general-dynamic).
#[test]
fn thread_locals_of_a_library_general_dynamic() -> Result<()> {
    let flags = ["-ftls-model=global-dynamic", "-mtls-dialect=gnu"];
    each_thread_its_own("counted.c", &flags, Some("R_X86_64_DTPMOD64"))
}

// `relocation` is what the image must have, for which the compiler took the model that it was told.
fn each_thread_its_own(source: &str, flags: &[&str], relocation: Option<&str>) -> Result<()> {
    in_workdir("thread_local", |dir| {
        let build = Build {
            flags,
            ..Build::default()
        };
        let pair = Pair::build(dir, source, build)?;
        let mut readelf = Command::new("readelf");
        readelf.arg("-rW").arg(pair.images().0);
        let relocations = tool(readelf)?.stdout;
        ensure!(
            relocation.is_none_or(|kind| relocations.contains(kind)),
            "{relocations}"
        );
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        target.expect("0", "old 0: 1 101")?;
        target.expect("0", "old 0: 2 102")?;
        target.expect("1", "old 1: 1 101")?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect("0", "new 0: 3 103")?;
        target.expect("1", "new 1: 2 102")?;
        target.expect("2", "new 2: 1 101")?;
        revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        target.expect("0", "old 0: 4 104")?;
        target.expect("1", "old 1: 3 103")?;
        target.expect("2", "old 2: 2 102")
    })
}

/// New data exists only in the patch: it starts with its initial values and keeps what is written to it.
#[test]
fn new_global_string_and_table() -> Result<()> {
    in_workdir("new_data", |dir| {
        let pair = Pair::build(dir, "new_data.c", Build::default())?;
        let mut target = pair.start()?;
        let patch = pair.patch()?;
        target.expect_all(&pair.fixture.asks, Side::Old)?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect_all(&pair.fixture.asks, Side::New)?;
        revert(Some("fix"), target.pid())?.expect_state("reverted")?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

/// The loader has bound what the program imports and binds no more, so the tool looks the rest up as the loader would.
#[test]
fn new_import_is_looked_up() -> Result<()> {
    let forms: [&[&str]; 3] = [
        &["-fPIE", "-pie", "-mno-direct-extern-access"],
        &["-fPIE", "-pie", "-fno-plt", "-mno-direct-extern-access"],
        &[
            "-fPIE",
            "-pie",
            "-Wl,-z,now,-z,relro",
            "-fcf-protection",
            "-mno-direct-extern-access",
        ],
    ];
    for flags in forms {
        round_trip_as(
            "new_import.c",
            Build {
                compiler: None,
                flags,
            },
        )?;
    }
    Ok(())
}

/// A copy of a library's variable cannot be made in a process that runs; but to throw an exception takes no more than the
/// address of its description.
#[test]
fn first_throw_of_a_kind_is_looked_up() -> Result<()> {
    round_trip_as("first_throw.cpp", Build::default())
}

/// A library that was put before libc has one of the functions, too: whose it is to be is not for the tool to guess.
#[test]
fn new_import_of_two_libraries_is_refused() -> Result<()> {
    interposed(|_| Ok(()), "which both")
}

/// The loader needs no section headers, the tool does: what a library without them has is not known.
#[test]
fn new_import_beside_an_unreadable_library_is_refused() -> Result<()> {
    let strip = |library: &Path| -> Result<()> {
        let mut file = std::fs::read(library)?;
        // e_shoff, and e_shnum with e_shstrndx.
        file[0x28..0x30].fill(0);
        file[0x3c..0x40].fill(0);
        Ok(std::fs::write(library, file)?)
    };
    interposed(strip, "cannot be read")
}

fn interposed(change: impl Fn(&Path) -> Result<()>, why: &str) -> Result<()> {
    in_workdir("interposed", |dir| {
        let flags = &["-fPIE", "-pie", "-mno-direct-extern-access"];
        let pair = Pair::build(
            dir,
            "new_import.c",
            Build {
                compiler: None,
                flags,
            },
        )?;
        let library = dir.join("interposed.so");
        let source = dir.join("interposed.c");
        std::fs::write(
            &source,
            "#include <wchar.h>\nint wcwidth(wchar_t c) { return c ? 2 : 0; }\n",
        )?;
        let mut compiler = Command::new("gcc");
        compiler
            .args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source);
        tool(compiler)?;
        change(&library)?;
        let mut command = Command::new(&pair.base);
        command.env("LD_PRELOAD", &library);
        let mut target = Target::start_command(command, &pair.base)?;
        let before = Snapshot::of(target.pid())?;
        apply(&pair.patch()?, target.pid(), &[])?
            .expect_failure(1, &["new code needs", "interposed.so", why])?;
        before.expect_same()?;
        target.expect_all(&pair.fixture.asks, Side::Old)
    })
}

/// The running library is an older one, which lacks the function that new code calls: refused before anything is changed.
#[test]
fn missing_function_is_refused() -> Result<()> {
    in_workdir("missing", |dir| {
        let (full, lean) = (dir.join("full"), dir.join("lean"));
        let library = "int usual(int n) { return n; }\n#ifdef FULL\nint extra(int n) { return n + 2; }\n#endif\n";
        let program = "#include \"serve.h\"\nint usual(int n);\nint extra(int n);\n\
            KEEP int price(int n) {\n#ifdef FIXED\n    return extra(n) + 0 * usual(n);\n#else\n    return usual(n);\n#endif\n}\n\
            void answer(const char *question, char *reply, size_t size) {\n    (void)question;\n    snprintf(reply, size, \"%d\", price(10));\n}\n";
        std::fs::write(dir.join("stock.c"), library)?;
        std::fs::write(dir.join("needs.c"), program)?;
        for (folder, flags) in [(&full, &["-DFULL"][..]), (&lean, &[])] {
            std::fs::create_dir(folder)?;
            let mut compiler = Command::new("cc");
            compiler.args(["-O2", "-shared", "-fPIC"]).args(flags);
            compiler.arg(dir.join("stock.c"));
            tool({
                compiler.arg("-o").arg(folder.join("libstock.so"));
                compiler
            })?;
        }
        let programs = [("base", &[][..]), ("fixed", &["-DFIXED"])].map(|(name, flags)| {
            let mut compiler = Command::new("cc");
            compiler
                .args(["-O2", "-g", "-fPIE", "-pie", "-mno-direct-extern-access"])
                .args(["-Iparts", "-Wl,--build-id=sha1"])
                .args(flags)
                .arg(dir.join("needs.c"))
                .arg("parts/serve.c")
                .arg("-L")
                .arg(&full)
                .args(["-lstock", "-o"])
                .arg(dir.join(name));
            tool(compiler).map(|_| dir.join(name))
        });
        let [base, fixed] = programs;
        let (base, fixed, patch) = (base?, fixed?, dir.join("fix.patch"));
        invivo::build(&base, &fixed, &patch, &[])?;
        let start = |libraries: &Path| {
            let mut command = Command::new(&base);
            command.env("LD_LIBRARY_PATH", libraries);
            Target::start_command(command, &base)
        };
        // With the library that it was linked with there is no objection.
        let mut target = start(&full)?;
        apply(&patch, target.pid(), &[])?.expect_state("applied")?;
        target.expect("price", "12")?;
        let mut target = start(&lean)?;
        let (before, all) = (Snapshot::of(target.pid())?, mappings(target.pid())?);
        apply(&patch, target.pid(), &[])?.expect_failure(1, &["new code needs", "extra"])?;
        before.expect_same()?;
        ensure!(all == mappings(target.pid())?, "a mapping was left behind");
        target.expect("price", "10")
    })
}

/// errno is a thread-local of libc, which the patch has to reach through the program's own import.
#[test]
fn errno_is_one() -> Result<()> {
    round_trip("errno.c")?;
    in_workdir("errno", |dir| {
        let pair = Pair::build(dir, "errno.c", Build::default())?;
        let (patch, mut target) = (pair.patch()?, pair.start()?);
        target.expect("set", "75")?;
        for consistency in CONSISTENCIES {
            apply(&patch, target.pid(), &["--consistency", consistency])?
                .expect_state("applied")?;
            target.expect("kept", "75").context("after the apply")?;
            revert(None, target.pid())?.expect_state("reverted")?;
            target.expect("kept", "75").context("after the revert")?;
        }
        Ok(())
    })
}

/// New code alone would not change what the variable holds by now.
#[test]
fn changed_initial_value_is_refused() -> Result<()> {
    refused("initial_value.c")
}

/// Objects with the old layout are alive.
#[test]
fn changed_structure_layout_is_refused() -> Result<()> {
    refused("layout.c")
}

/// The running buffer keeps its size, whatever new code believes.
#[test]
fn resized_variable_is_refused() -> Result<()> {
    refused("resized.c")
}
