//! Cold patches that keep the base's layout: the old file with the fixed functions behind it, installed, started, and
//! taken back.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use live_tests::compile::Build;
use live_tests::invivo::{apply, invivo};
use live_tests::pair::Pair;
use live_tests::run::Ran;
use live_tests::target::Side;
use live_tests::workdir::in_workdir;

fn build(dir: &Path, pair: &Pair) -> Result<Ran> {
    let out = dir.join("kept").display().to_string();
    let (base, fixed) = pair.images();
    let [base, fixed] = [base, fixed].map(|path| path.display().to_string());
    let format = ["--format", "final", "--keep-layout", "--name", "fix"];
    invivo(&[&["build", &base, &fixed, "-o", &out][..], &format].concat())
}

/// Old code, the file exchanged, new code, and back; a process that ran all the while takes the patch from the same file.
fn there_and_back(source: &str, flags: &[&str]) -> Result<()> {
    in_workdir("kept", |dir| {
        let build_as = Build {
            flags,
            ..Build::default()
        };
        let pair = Pair::build(dir, source, build_as)?;
        let asks = &pair.fixture.asks;
        let mut running = pair.start()?;
        build(dir, &pair)?.expect_code(0)?;
        let (kept, file) = (dir.join("kept"), pair.images().0);
        well_formed(&pair.images().0, &kept)?;
        let old = fs::read(&file)?;
        let [image, path] = [&kept, &file].map(|path| path.display().to_string());
        invivo(&["install", &image, &path])?.expect_code(0)?;
        pair.start()?.expect_all(asks, Side::New)?;
        running.expect_all(asks, Side::Old)?;
        apply(&kept, running.pid(), &[])?.expect_state("applied")?;
        running.expect_all(asks, Side::New)?;
        invivo(&["uninstall", &path])?.expect_code(0)?;
        ensure!(fs::read(&file)? == old);
        pair.start()?.expect_all(asks, Side::Old)
    })
    .with_context(|| format!("{source} {flags:?}"))
}

/// Other readers find nothing to complain about, or nothing that they do not find in the old file.
fn well_formed(base: &Path, file: &Path) -> Result<()> {
    let read = Command::new("readelf").args(["-aW"]).arg(file).output()?;
    let said = String::from_utf8_lossy(&read.stderr);
    ensure!(read.status.success() && said.is_empty(), "readelf: {said}");
    let (old, new) = (complaints(base)?, complaints(file)?);
    let more: Vec<_> = new
        .difference(&old)
        .filter(|line| !is_so_on_purpose(line))
        .collect();
    ensure!(more.is_empty(), "eu-elflint: {more:?}");
    Ok(())
}

/// What elfutils finds and what is so on purpose: the segments of what is new are described to
/// loaders and not by sections, and symbols of a linker still name the start and the end of the unwind data
/// that lies elsewhere now. Nothing that runs reads either.
fn is_so_on_purpose(line: &str) -> bool {
    let of_unwinding = ["(__FRAME_END__)", "(__GNU_EH_FRAME_HDR)"];
    (line.starts_with("loadable segment") && line.contains(" but contains no "))
        || (line.ends_with(": st_value out of bounds")
            && of_unwinding.iter().any(|name| line.contains(name)))
}

/// What elfutils finds wrong with a file.
fn complaints(file: &Path) -> Result<BTreeSet<String>> {
    let read = Command::new("eu-elflint")
        .arg("--gnu-ld")
        .arg(file)
        .output();
    let read = read.context("eu-elflint cannot be run: apt-get install -y elfutils")?;
    let said =
        String::from_utf8_lossy(&read.stdout).into_owned() + &String::from_utf8_lossy(&read.stderr);
    let lines = said.lines().filter(|line| *line != "No errors");
    Ok(lines.map(str::to_owned).collect())
}

#[test]
fn functions_and_their_data() -> Result<()> {
    let sources = [
        "greeting.c",
        "new_data.c",
        "jump_table.c",
        "pointer_table.c",
        "struct_return.c",
        "signature.c",
        "tiny.c",
        "endbr.c",
    ];
    sources
        .iter()
        .try_for_each(|source| there_and_back(source, &[]))
}

/// Exceptions and panics find their way through the new functions.
#[test]
fn exceptions_and_panics() -> Result<()> {
    there_and_back("virtual.cpp", &[])?;
    there_and_back("panics.rs", &[])
}

#[test]
fn a_library() -> Result<()> {
    there_and_back("linked.c", &[])
}

#[test]
fn every_kind_of_program() -> Result<()> {
    let kinds: [&[&str]; 5] = [
        &["-no-pie"],
        &["-static-pie"],
        &["-Wl,-z,pack-relative-relocs"],
        &["-fuse-ld=lld"],
        &["-Wl,-z,noseparate-code"],
    ];
    for flags in kinds {
        there_and_back("virtual.cpp", flags)?;
        // Pointers in new tables: relocations where the program may lie anywhere.
        there_and_back("pointer_table.c", flags)?;
    }
    Ok(())
}

/// What the old file has no room for is refused with what it is.
#[test]
fn what_only_a_new_link_can_give() -> Result<()> {
    let cases: [(&str, &[&str], &str); 2] = [
        (
            "new_import.c",
            &["-fPIE", "-pie", "-mno-direct-extern-access"],
            "of another library, which the base does not import",
        ),
        ("greeting.c", &["-static"], "no table of its unwind data"),
    ];
    for (source, flags, why) in cases {
        in_workdir("kept-refused", |dir| {
            let build_as = Build {
                flags,
                ..Build::default()
            };
            let ran = build(dir, &Pair::build(dir, source, build_as)?)?;
            ran.expect_code(1)?;
            ensure!(ran.stderr.contains(why), "{}", ran.told());
            ensure!(!dir.join("kept").exists());
            Ok(())
        })?;
    }
    Ok(())
}

/// The file says what it is.
#[test]
fn it_is_told() -> Result<()> {
    in_workdir("kept-told", |dir| {
        let pair = Pair::build(dir, "greeting.c", Build::default())?;
        build(dir, &pair)?.expect_code(0)?;
        let kept = dir.join("kept").display().to_string();
        let ran = invivo(&["inspect", &kept, "--json"])?;
        let told = ran.expect_code(0)?.json("invivo.final/1")?;
        ensure!(told["kept_layout"] == true, "{told}");
        ensure!(
            told["base"]["build_id"] != told["fixed"]["build_id"],
            "{told}"
        );
        let (base, fixed) = (&pair.base, &pair.fixed);
        let [base, fixed] = [base, fixed].map(|path| path.display().to_string());
        let ran = invivo(&["build", &base, &fixed, "-o", &kept, "--keep-layout"])?;
        ran.expect_code(2)?;
        ensure!(ran.stderr.contains("--format final"), "{}", ran.told());
        Ok(())
    })
}
