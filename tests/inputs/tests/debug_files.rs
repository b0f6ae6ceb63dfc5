//! Programs whose debug data are somewhere else, or packed: what is said about a fix is the
//! same as where they are in the program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use input_tests::compare::{expect_of, image};
use input_tests::layout::{Compiler, Layout};
use input_tests::program::{CLASSES, PLAIN, Program, Version};
use input_tests::tool::{Workdir, run};
use invivo_compare::Comparison;
use invivo_image::{Image, SourcePlace};

/// How debug data are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// In the program, packed by the linker.
    Packed(&'static str),
    /// In a file beside the program, which is stripped.
    Apart,
    /// The same, packed.
    ApartPacked(&'static str),
    /// The same, and `dwz` made them smaller.
    Dwz,
    /// The same, and `dwz` moved what two programs have in common to a third file.
    Supplementary,
    /// The compiler leaves them beside the object files.
    Split,
    /// The same, and this tool packs them into one file.
    Package(&'static str),
}

const WAYS: [Kept; 10] = [
    Kept::Packed("zlib"),
    Kept::Packed("zstd"),
    Kept::Apart,
    Kept::ApartPacked("zlib"),
    Kept::ApartPacked("zstd"),
    Kept::Dwz,
    Kept::Supplementary,
    Kept::Split,
    Kept::Package("dwp"),
    Kept::Package("llvm-dwp"),
];

impl Kept {
    /// Why no tool can do it; `None` if one can.
    fn impossible(self, compiler: Compiler, debug: &[&str]) -> Option<&'static str> {
        let dwz = matches!(self, Kept::Dwz | Kept::Supplementary);
        let version_5 = debug == ["-gdwarf-5"];
        if dwz && version_5 && compiler == Compiler::Clang {
            return Some("dwz does not know .debug_addr");
        }
        match self {
            Kept::Package("dwp") if version_5 => Some("binutils' dwp crashes on DWARF 5"),
            // Versions 14 and 22 alike.
            Kept::Package(_) if version_5 && compiler == Compiler::Gcc => {
                Some("llvm-dwp does not end on DWARF 5 of gcc")
            }
            _ => None,
        }
    }
}

/// Takes the debug data out of `program`, as packagers do; the file that has them.
fn strip(program: &Path, packed: Option<&str>) -> Result<PathBuf> {
    let debug = program.with_extension("debug");
    let mut command = Command::new("objcopy");
    command.arg("--only-keep-debug");
    if let Some(how) = packed {
        command.arg(format!("--compress-debug-sections={how}"));
    }
    run(command.arg(program).arg(&debug))?;
    run(Command::new("strip").arg("--strip-all").arg(program))?;
    Ok(debug)
}

/// Compiles with the debug data beside the object files, and reads all of it; `pack` makes one
/// file of them.
fn split(
    program: &Program,
    layout: &Layout,
    version: Version,
    pack: Option<&str>,
) -> Result<Image> {
    let work = Workdir::new("split")?;
    let debug: Vec<&str> = layout
        .debug
        .iter()
        .copied()
        .chain(["-gsplit-dwarf"])
        .collect();
    let layout = Layout {
        debug: debug.leak(),
        ..*layout
    };
    let objects = program.compile(&layout, version, work.path())?;
    let linked = work.path().join("program");
    program.link(&layout, &objects, &[], &linked)?;
    let mut image = image(&linked)?;
    let missing = image.missing_split_units()?;
    ensure!(missing.len() == objects.len(), "{missing:?} are split");
    if let Some(pack) = pack {
        let package = work.path().join("program.dwp");
        run(Command::new(pack)
            .arg("-e")
            .arg(&linked)
            .arg("-o")
            .arg(&package))?;
        image.attach_split(file(&package)?, &missing)?;
    } else {
        for unit in &missing {
            let path = Path::new(&unit.folder).join(&unit.name);
            image.attach_split(file(&path)?, std::slice::from_ref(unit))?;
        }
    }
    let missing = image.missing_split_units()?;
    ensure!(missing.is_empty(), "{missing:?} are not found");
    Ok(image)
}

fn file(path: &Path) -> Result<Arc<[u8]>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Arc::from(bytes))
}

/// Builds one version in a way and reads it with all its files.
fn built(program: &Program, layout: &Layout, version: Version, kept: Kept) -> Result<Image> {
    match kept {
        Kept::Split => return split(program, layout, version, None),
        Kept::Package(pack) => return split(program, layout, version, Some(pack)),
        _ => {}
    }
    let work = Workdir::new("kept")?;
    let objects = program.compile(layout, version, work.path())?;
    let linked = work.path().join("program");
    program.link(layout, &objects, &[], &linked)?;
    let packed = match kept {
        Kept::Packed(how) => {
            let mut command = Command::new("objcopy");
            command.arg(format!("--compress-debug-sections={how}"));
            run(command.arg(&linked))?;
            let packed = run(Command::new("readelf").args(["-St", "--wide"]).arg(&linked))?;
            ensure!(packed.contains("COMPRESSED"), "nothing is packed");
            return image(&linked);
        }
        Kept::ApartPacked(how) => Some(how),
        _ => None,
    };
    let debug = strip(&linked, packed)?;
    let common = work.path().join("common");
    match kept {
        Kept::Dwz => drop(run(Command::new("dwz").arg(&debug))?),
        Kept::Supplementary => {
            // Only what is in two files is moved.
            let other = work.path().join("other.debug");
            std::fs::copy(&debug, &other)?;
            let mut command = Command::new("dwz");
            command.arg("-m").arg(&common);
            run(command.arg(&debug).arg(&other))?;
        }
        _ => {}
    }
    let mut image = Image::parse(file(&linked)?, None)?;
    ensure!(!image.has_symbols, "the program is not stripped");
    image.attach_debug(file(&debug)?)?;
    let link = image.supplementary_link()?;
    ensure!(
        link.is_some() == (kept == Kept::Supplementary),
        "{link:?} is the supplementary file"
    );
    if link.is_some() {
        image.attach_supplementary(file(&common)?)?;
    }
    Ok(image)
}

/// What a comparison says that rests on debug data.
fn told(base: &Image, fixed: &Image) -> Result<Vec<String>> {
    let c = Comparison::new(base, fixed);
    let (Ok(before), Ok(after)) = (&c.base_source, &c.fixed_source) else {
        anyhow::bail!("{:?} {:?}", c.base_source, c.fixed_source);
    };
    let mut said = Vec::new();
    for hot in &c.hot {
        let reasons = hot.reasons.iter();
        let reasons: Vec<String> = reasons
            .map(|r| format!("{:?} {}", r.kind, r.text))
            .collect();
        // `dwz` does not keep the folder in which the compiler ran.
        let place = |place: &SourcePlace| {
            let name = place.file.rsplit('/').next().unwrap_or_default();
            (name.to_owned(), place.line)
        };
        let source = hot.fixed_source.as_ref();
        let source = source.map(|s| (&s.prototype_text, s.declared.as_ref().map(place)));
        said.push(format!("{} {source:?} {reasons:?}", hot.name));
    }
    for (name, types) in before.types.iter().chain(&after.types) {
        said.push(format!("{name} {:?}", types.layouts));
    }
    // What lies beside in the same source file is compared, too.
    said.extend(
        after
            .beside
            .iter()
            .map(|(name, t)| format!("{name} {:?}", t.layouts)),
    );
    said.sort();
    Ok(said)
}

fn hold(program: &Program, compiler: Compiler, debug: &'static [&'static str]) {
    let all = || -> Result<Vec<String>> {
        let layout = Layout {
            debug,
            ..Layout::usual(compiler)
        };
        let work = Workdir::new("whole")?;
        let whole = [Version::Base, Version::Fixed].map(|version| -> Result<Image> {
            let objects = program.compile(&layout, version, work.path())?;
            let linked = work.path().join("linked");
            program.link(&layout, &objects, &[], &linked)?;
            image(&linked)
        });
        let [base, fixed] = whole;
        let (base, fixed) = (base?, fixed?);
        let expected = told(&base, &fixed)?;
        ensure!(expected.len() > 5, "nothing is told of types: {expected:?}");
        let mut wrong = Vec::new();
        let ways = WAYS.into_iter();
        for kept in ways.filter(|kept| kept.impossible(compiler, debug).is_none()) {
            let one = || -> Result<()> {
                let base = built(program, &layout, Version::Base, kept)?;
                let fixed = built(program, &layout, Version::Fixed, kept)?;
                expect_of(&base, &fixed, &program.changes()?)?;
                let said = told(&base, &fixed)?;
                let only = |these: &[String], those: &[String]| -> Vec<String> {
                    let only = these.iter().filter(|line| !those.contains(line));
                    only.cloned().collect()
                };
                let (mut more, less) = (only(&said, &expected), only(&expected, &said));
                if matches!(kept, Kept::Split | Kept::Package(_)) {
                    // There gcc keeps types that nothing uses.
                    more.retain(|line| !line.contains(" {TypeLayout {"));
                }
                ensure!(
                    more.is_empty() && less.is_empty(),
                    "{more:#?}\nand not {less:#?}"
                );
                Ok(())
            };
            if let Err(error) = one() {
                wrong.push(format!("{kept:?}\n{error:#}"));
            }
        }
        Ok(wrong)
    };
    let wrong = all().expect("the program can be built");
    assert!(
        wrong.is_empty(),
        "{compiler:?} {debug:?}\n{}",
        wrong.join("\n\n")
    );
}

#[test]
fn c_with_dwarf_5() {
    hold(&PLAIN, Compiler::Gcc, &["-gdwarf-5"]);
    hold(&PLAIN, Compiler::Clang, &["-gdwarf-5"]);
}

#[test]
fn c_with_dwarf_4() {
    hold(&PLAIN, Compiler::Gcc, &["-gdwarf-4"]);
    hold(&PLAIN, Compiler::Clang, &["-gdwarf-4"]);
}

#[test]
fn cpp_with_either() {
    hold(&CLASSES, Compiler::Gcc, &["-gdwarf-5"]);
    hold(&CLASSES, Compiler::Clang, &["-gdwarf-4"]);
}
