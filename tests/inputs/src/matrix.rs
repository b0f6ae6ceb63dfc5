//! Which of all the layouts a run builds, and building them.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Result;

use crate::compare::expect;
use crate::layout::{Compiler, Feature, Kind, LINKERS, Layout};
use crate::program::{Program, Version};
use crate::tool::Workdir;

/// Optimisation levels.
const LEVELS: [&str; 4] = ["-O2", "-O3", "-Os", "-O0"];

/// True if every combination is to be built, which takes half an hour, rather than
/// each choice once: the variable `INVIVO_INPUTS` is `all`.
#[must_use]
pub fn is_whole() -> bool {
    std::env::var_os("INVIVO_INPUTS").is_some_and(|value| value == "all")
}

/// The layouts of one compiler that can be built.
#[must_use]
pub fn layouts(compiler: Compiler) -> Vec<Layout> {
    let usual = Layout::usual(compiler);
    let mut all = Vec::new();
    for level in LEVELS {
        for feature in Feature::ALL {
            for kind in Kind::ALL {
                for linker in LINKERS {
                    let linker = match (compiler, feature) {
                        // The only one that can do it for this compiler.
                        (Compiler::Clang, Feature::Lto) => "lld",
                        _ => linker,
                    };
                    all.push(Layout {
                        level,
                        feature,
                        kind,
                        linker,
                        ..usual
                    });
                }
            }
        }
    }
    all.retain(|layout| layout.impossible().is_none() && layout.not_exact().is_none());
    all.dedup();
    if !is_whole() {
        // Each level and each feature in the usual file, each kind with each linker.
        all.retain(|layout| {
            let own = [
                layout.level != usual.level,
                layout.feature != usual.feature,
                layout.kind != usual.kind || layout.linker != usual.linker,
            ];
            let lto = layout.feature == Feature::Lto && layout.kind == usual.kind;
            own.iter().filter(|own| **own).count() <= 1
                || (lto && layout.level == usual.level && compiler == Compiler::Clang)
        });
    }
    all
}

/// Builds base and fixed in every layout and compares them: the functions that the source
/// is annotated with differ, and nothing else.
///
/// # Panics
/// With a list of the layouts in which it is otherwise.
pub fn hold(program: &Program, layouts: &[Layout], more: &[&str]) {
    let all = || -> Result<Vec<String>> {
        let work = Workdir::new("matrix")?;
        let expected = program.changes()?;
        let mut compiled: HashMap<Vec<String>, [Vec<PathBuf>; 2]> = HashMap::new();
        let mut wrong = Vec::new();
        for layout in layouts {
            let mut one = || -> Result<()> {
                let flags = layout.compile_flags()?;
                let next = work.path().join(compiled.len().to_string());
                if !compiled.contains_key(&flags) {
                    let both = [Version::Base, Version::Fixed]
                        .map(|version| program.compile(layout, version, &next));
                    let [base, fixed] = both;
                    compiled.insert(flags.clone(), [base?, fixed?]);
                }
                let files = ["base", "fixed"].map(|name| work.path().join(name));
                for (objects, file) in compiled[&flags].iter().zip(&files) {
                    program.link(layout, objects, more, file)?;
                }
                expect(&files[0], &files[1], &expected)
            };
            if let Err(error) = one() {
                wrong.push(format!("{layout:?}\n{error:#}"));
            }
        }
        Ok(wrong)
    };
    let wrong = all().expect("the folder and the sources can be read");
    assert!(!layouts.is_empty(), "no layout can be built");
    assert!(
        wrong.is_empty(),
        "{} of {} layouts:\n\n{}",
        wrong.len(),
        layouts.len(),
        wrong.join("\n\n")
    );
}
