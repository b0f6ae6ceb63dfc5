//! Builds that differ in nothing that matters: the comparison finds nothing.

use std::path::Path;

use anyhow::Result;
use input_tests::compare::expect;
use input_tests::layout::{Compiler, Feature, Kind, LINKERS, Layout, WILD};
use input_tests::program::{CLASSES, PLAIN, Program, Version};
use input_tests::tool::Workdir;

/// How the objects are linked again: flags, whether in the reverse order, more flags.
type Again<'a> = (Layout, bool, &'a [&'a str]);

/// Links the objects of one build in several ways; the first is compared with all others.
fn hold(program: &Program, layout: Layout, links: &[Again<'_>]) {
    let all = || -> Result<Vec<String>> {
        let work = Workdir::new("again")?;
        let objects = program.compile(&layout, Version::Base, work.path())?;
        let link = |(layout, reversed, more): &Again<'_>, out: &Path| {
            let mut objects = objects.clone();
            if *reversed {
                objects.reverse();
            }
            program.link(layout, &objects, more, out)
        };
        let (first, other) = (work.path().join("first"), work.path().join("other"));
        link(&(layout, false, &[]), &first)?;
        let mut wrong = Vec::new();
        for how in links {
            if let Err(error) = link(how, &other).and_then(|()| expect(&first, &other, &[])) {
                wrong.push(format!("{how:?}\n{error:#}"));
            }
        }
        Ok(wrong)
    };
    let wrong = all().expect("the objects can be made");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// With a section for each function linkers may put them in any order.
fn sections(compiler: Compiler, linker: &'static str, kind: Kind) -> Layout {
    Layout {
        feature: Feature::Sections,
        linker,
        kind,
        ..Layout::usual(compiler)
    }
}

const SHUFFLED: [&[&str]; 3] = [
    &["-Wl,--shuffle-sections=*=7"],
    &["-Wl,--shuffle-sections=*=1234"],
    &["-Wl,--shuffle-sections=*=-1"],
];

#[test]
fn another_order() {
    for program in [PLAIN, CLASSES] {
        for compiler in [Compiler::Gcc, Compiler::Clang] {
            for kind in [Kind::Pie, Kind::Fixed] {
                let lld = sections(compiler, "lld", kind);
                let shuffled = SHUFFLED.map(|more| (lld, false, more));
                let mut links = vec![(lld, false, &[][..]), (lld, true, &[][..])];
                links.extend(shuffled);
                hold(&program, lld, &links);
                let bfd = sections(compiler, "bfd", kind);
                let sorted: [&[&str]; 2] = [
                    &["-Wl,--sort-section=name"],
                    &["-Wl,--sort-section=alignment"],
                ];
                let mut links = vec![(bfd, true, &[][..])];
                links.extend(sorted.map(|more| (bfd, false, more)));
                hold(&program, bfd, &links);
            }
        }
    }
}

/// Not at fixed addresses: there each linker has its own way to write `mov rdi, main@GOTPCREL`
/// of `_start`, and other instructions count as other instructions.
#[test]
fn another_linker() {
    for program in [PLAIN, CLASSES] {
        for compiler in [Compiler::Gcc, Compiler::Clang] {
            for kind in [Kind::Pie, Kind::Shared] {
                let of = |linker| Layout {
                    kind,
                    linker,
                    ..Layout::usual(compiler)
                };
                // Wild's calls of imports take other ways than those of all others.
                let others = LINKERS.into_iter().filter(|linker| *linker != WILD);
                let links: Vec<_> = others.map(|linker| (of(linker), false, &[][..])).collect();
                hold(&program, of("bfd"), &links);
            }
        }
    }
}
