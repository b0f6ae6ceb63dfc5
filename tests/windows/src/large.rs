//! A Windows library of a hundred megabytes, and its fixed build: what it costs to make a patch of the
//! largest is measured with them.
//!
//! Three hundred and forty files of C and C++, written from one seed and compiled as any others: functions
//! that call, inline and are called through tables; types, variables, texts, switches, templates
//! and classes. Nobody runs them.

mod body;
mod header;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use crate::{LLVM, Library, linker, run};
use body::Body;

/// Files of source.
const UNITS: usize = 340;

/// Functions of each that are its own work; templates, methods and what is inlined come on top.
const FUNCTIONS: usize = 330;

/// What is fixed, by file; one of them in C++.
const FIXES: [usize; 3] = [4, 84, 332];

/// Numbers that look as if nobody had chosen them, the same in each run (xorshift).
#[derive(Debug)]
struct Numbers(u64);

impl Numbers {
    fn new(seed: usize) -> Numbers {
        Numbers((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

/// Whether the compiler takes its time: it needs nine times as long for each byte of code.
fn is_optimized(unit: usize) -> bool {
    unit % 8 == 4
}

fn is_plus(unit: usize) -> bool {
    unit.is_multiple_of(3)
}

/// The library, and its fixed build, which is compiled for hot patching. They are built below
/// `folder` at the first call: minutes.
///
/// # Errors
/// When a tool is missing or fails, or the disk is full.
pub fn pair(folder: &Path) -> Result<[Library; 2]> {
    let made = ["base", "fixed"].map(|name| Library {
        path: folder.join(name).join("large.dll"),
        pdb: folder.join(name).join("large.pdb"),
    });
    // It is written last.
    let is_there = folder.join("complete");
    if is_there.is_file() {
        return Ok(made);
    }
    let work = folder.join("work");
    std::fs::create_dir_all(&work)?;
    std::fs::write(work.join("large.h"), header::text())?;
    let objects = compile(&work, 0..UNITS, false)?;
    link(&objects, &made[0])?;
    let fixed = compile(&work, FIXES.into_iter(), true)?;
    let fixed: Vec<PathBuf> = (0..UNITS)
        .zip(objects)
        .map(
            |(unit, object)| match FIXES.iter().position(|fix| *fix == unit) {
                Some(at) => fixed[at].clone(),
                None => object,
            },
        )
        .collect();
    link(&fixed, &made[1])?;
    std::fs::remove_dir_all(&work)?;
    std::fs::write(is_there, "")?;
    Ok(made)
}

/// Compiles some files, as many at a time as there are processors.
fn compile(
    work: &Path,
    units: impl Iterator<Item = usize>,
    is_fixed: bool,
) -> Result<Vec<PathBuf>> {
    let units: Vec<usize> = units.collect();
    let next = AtomicUsize::new(0);
    let one_after_another = || -> Result<()> {
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            compile_one(work, *unit, is_fixed)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let many = std::thread::available_parallelism()?.get();
        let threads: Vec<_> = (0..many).map(|_| scope.spawn(one_after_another)).collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread ended"))??;
        }
        Ok(())
    })?;
    Ok(units
        .into_iter()
        .map(|unit| object(work, unit, is_fixed))
        .collect())
}

fn object(work: &Path, unit: usize, is_fixed: bool) -> PathBuf {
    let folder = work.join(if is_fixed { "fixed" } else { "base" });
    folder.join(format!("unit_{unit}.obj"))
}

fn compile_one(work: &Path, unit: usize, is_fixed: bool) -> Result<()> {
    let plus = is_plus(unit);
    let source = work.join(format!("unit_{unit}.{}", if plus { "cpp" } else { "c" }));
    std::fs::write(&source, text(unit))?;
    let object = object(work, unit, is_fixed);
    std::fs::create_dir_all(object.parent().context("a folder")?)?;
    let name = if plus { "clang++" } else { "clang" };
    let mut clang = Command::new(format!("{name}-{LLVM}"));
    clang
        .args(["--target=x86_64-windows-msvc", "-c", "-g"])
        .arg(if is_optimized(unit) { "-O1" } else { "-O0" })
        .args(["-gcodeview", "-ffunction-sections", "-fdata-sections"])
        .args(["-fno-stack-protector", "-fms-hotpatch", "-w"]);
    if plus {
        clang.args(["-fno-rtti", "-fno-exceptions", "-fno-threadsafe-statics"]);
    }
    if is_fixed {
        clang.args([
            "-DFIXED",
            &format!("-fms-secure-hotpatch-functions-list=fix_{unit}"),
        ]);
    }
    clang.arg("-o").arg(&object).arg(&source);
    run(&mut clang, "clang-22")?;
    std::fs::remove_file(source)?;
    Ok(())
}

fn link(objects: &[PathBuf], to: &Library) -> Result<()> {
    let place = to.path.parent().context("a folder")?;
    std::fs::create_dir_all(place)?;
    let list = place.join("objects.rsp");
    let mut words = String::new();
    for object in objects {
        writeln!(words, "\"{}\"", object.display())?;
    }
    std::fs::write(&list, words)?;
    let mut lld = Command::new(linker()?);
    lld.args(["-flavor", "link", "/nologo", "/dll", "/nodefaultlib"])
        .args(["/entry:_DllMainCRTStartup", "/debug:full", "/Brepro"])
        .args(["/release", "/opt:noref,noicf", "/pdbaltpath:%_PDB%"])
        .args(["/functionpadmin:6", "/hotpatchcompatible"])
        .arg(format!("/out:{}", to.path.display()))
        .arg(format!("/pdb:{}", to.pdb.display()))
        .arg(format!("@{}", list.display()));
    run(&mut lld, "the Rust toolchain's linker")?;
    std::fs::remove_file(list)?;
    ensure!(to.pdb.is_file(), "no {}", to.pdb.display());
    Ok(())
}

/// The source of one file.
fn text(unit: usize) -> String {
    let mut numbers = Numbers::new(unit);
    let mut text = String::from("#include \"large.h\"\n");
    header::statics(unit, &mut numbers, &mut text);
    if is_plus(unit) {
        header::classes(unit, &mut numbers, &mut text);
    }
    text.push_str("C_NAMES_BEGIN\n");
    for other in 0..8 {
        let other = (unit + other * 37 + 1) % UNITS;
        for number in 0..FUNCTIONS {
            if body::is_public(number) && number % 5 == 1 {
                let _ = writeln!(
                    text,
                    "int f_{other}_{number}(struct record_{} *, int);",
                    body::record_of(other, number)
                );
            }
        }
    }
    if let Some(at) = FIXES.iter().position(|fix| *fix == unit) {
        header::fix(unit, at, &mut text);
    }
    for number in 0..FUNCTIONS {
        Body::new(unit, number, &mut numbers).write(&mut text);
    }
    header::table(unit, &mut text);
    if unit == 0 {
        header::start(&mut text);
    }
    text.push_str("C_NAMES_END\n");
    text
}
