//! Rust, with all linkers, in one unit or many, and with the sections in any order.
//!
//! Whatever is built anew, no function of the fix may be missed. That nothing else differs
//! cannot be asked yet: texts of Rust have no end of their own, so where a linker puts another
//! text behind one, a function that reads it counts as changed. How many may do so is written
//! down here for each way of building, so that they do not become more.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use input_tests::compare::image;
use input_tests::layout::use_linker;
use input_tests::program::{Version, annotated, sources};
use input_tests::tool::{Workdir, run};
use invivo_compare::Comparison;

/// Builds the program. Both versions are built from the same place, so that they differ by the
/// fix alone.
fn build(options: &[&str], linker: &str, version: Version, out: &Path) -> Result<()> {
    let mut command = Command::new("rustc");
    command
        .current_dir(sources("rust"))
        .args(["--edition", "2024", "--crate-name", "program", "-g"])
        .args(["--check-cfg", "cfg(fixed)"])
        .args(["-C", &format!("link-arg={}", use_linker(linker))])
        .args(["-C", "link-arg=-Wl,--build-id"])
        .args(options);
    if version == Version::Fixed {
        command.args(["--cfg", "fixed"]);
    }
    run(command.args(["main.rs", "-o"]).arg(out)).map(drop)
}

/// Compares two files: the functions `expected` differ, and at most so many of the standard
/// library beside them.
fn expect(base: &Path, fixed: &Path, expected: &[String], most: usize) -> Result<()> {
    let (base, fixed) = (image(base)?, image(fixed)?);
    let c = Comparison::new(&base, &fixed);
    let hot: Vec<&str> = c.hot.iter().map(|hot| hot.name.as_str()).collect();
    for name in expected {
        ensure!(hot.contains(&name.as_str()), "not seen: {name}");
    }
    // What is inlined, and how registers are used, may change in the program's other functions.
    let is_own = |name: &&str| !expected.is_empty() && name.contains("program::");
    let others: Vec<&&str> = hot.iter().filter(|name| !is_own(name)).collect();
    ensure!(others.len() <= most, "{} differ: {others:#?}", others.len());
    Ok(())
}

fn hold(options: &[&str], linkers: &[(&str, usize)]) {
    let all = || -> Result<Vec<String>> {
        let work = Workdir::new("rust")?;
        let expected = annotated(&sources("rust").join("main.rs"))?;
        let mut wrong = Vec::new();
        for (linker, most) in linkers {
            let files = ["base", "fixed"].map(|name| work.path().join(name));
            let one = || -> Result<()> {
                build(options, linker, Version::Base, &files[0])?;
                build(options, linker, Version::Fixed, &files[1])?;
                expect(&files[0], &files[1], &expected, *most)
            };
            if let Err(error) = one() {
                wrong.push(format!("{linker} {options:?}\n{error:#}"));
            }
        }
        Ok(wrong)
    };
    let wrong = all().expect("the sources can be read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn each_linker() {
    hold(
        &["-O"],
        &[
            ("bfd", 0),
            ("gold", 2),
            ("lld", 1),
            ("mold", 0),
            ("wild", 1),
        ],
    );
}

#[test]
fn one_unit() {
    hold(&["-O", "-C", "codegen-units=1"], &[("bfd", 0), ("lld", 1)]);
}

#[test]
fn not_optimised() {
    hold(&["-C", "opt-level=0"], &[("bfd", 0), ("lld", 8)]);
}

#[test]
fn whole_program() {
    hold(&["-O", "-C", "lto=fat"], &[("bfd", 0), ("lld", 0)]);
}

/// lld puts the sections of all objects in any order that it is told.
#[test]
fn another_order() {
    let all = || -> Result<Vec<String>> {
        let work = Workdir::new("rust-order")?;
        let (first, other) = (work.path().join("first"), work.path().join("other"));
        build(&["-O"], "lld", Version::Base, &first)?;
        let mut wrong = Vec::new();
        for order in ["7", "1234", "-1"] {
            let shuffled = format!("link-arg=-Wl,--shuffle-sections=*={order}");
            let built = build(&["-O", "-C", &shuffled], "lld", Version::Base, &other);
            if let Err(error) = built.and_then(|()| expect(&first, &other, &[], 50)) {
                wrong.push(format!("{order}\n{error:#}"));
            }
        }
        Ok(wrong)
    };
    let wrong = all().expect("the program can be built");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Linked by another linker, each of which puts the texts in an order of its own: of the standard
/// library, the functions that write numbers and cut texts read one without an end.
#[test]
fn another_linker() {
    let all = || -> Result<Vec<String>> {
        let work = Workdir::new("rust-linker")?;
        let (first, other) = (work.path().join("first"), work.path().join("other"));
        build(&["-O"], "bfd", Version::Base, &first)?;
        let mut wrong = Vec::new();
        for (linker, most) in [("gold", 30), ("lld", 42), ("mold", 70)] {
            let built = build(&["-O"], linker, Version::Base, &other);
            if let Err(error) = built.and_then(|()| expect(&first, &other, &[], most)) {
                wrong.push(format!("{linker}\n{error:#}"));
            }
        }
        Ok(wrong)
    };
    let wrong = all().expect("the program can be built");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
