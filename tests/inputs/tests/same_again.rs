//! Builds that differ in nothing that matters: the comparison finds nothing.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use input_tests::compare::expect;
use input_tests::layout::{Compiler, Feature, Kind, LINKERS, Layout, WILD, use_linker};
use input_tests::program::{CLASSES, PLAIN, Program, Version, sources};
use input_tests::tool::{Workdir, run};

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

/// In C++ gold asks the loader for what `DW.ref._ZTIi` leads to, or knows that it is the program's
/// own, by the order of the objects.
#[test]
fn another_order_by_other_linkers() {
    for linker in ["gold", "mold", WILD] {
        let layout = sections(Compiler::Gcc, linker, Kind::Pie);
        for program in [PLAIN, CLASSES] {
            hold(
                &program,
                layout,
                &[(layout, false, &[]), (layout, true, &[])],
            );
        }
    }
}

/// All linkers but Wild, whose calls of imports take other ways than those of all others: in
/// its code they are other instructions. Not at fixed addresses: there each linker has its own
/// way to write `mov rdi, main@GOTPCREL` of `_start`, and copies other variables of libraries.
fn other_linkers() -> impl Iterator<Item = &'static str> {
    LINKERS.into_iter().filter(|linker| *linker != WILD)
}

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
                let links: Vec<_> = other_linkers()
                    .map(|linker| (of(linker), false, &[][..]))
                    .collect();
                hold(&program, of("bfd"), &links);
            }
        }
    }
}

/// Empty texts that calls get, in registers and on the stack, one of two of them: each linker puts
/// another text or padding behind the one that all of them share.
#[test]
fn empty_texts_by_other_linkers() {
    const SOURCE: &str = "\
#include <stdarg.h>
#include <stdio.h>
__attribute__((noinline)) void note(int level, const char *form, ...) {
  va_list all;
  va_start(all, form);
  if (level) vprintf(form, all);
  va_end(all);
}
__attribute__((noinline)) int head(int code, const char *name, const char *more) {
  char line[64] = \"Proxy-Authenticate: Basic realm\";
  const char *extra = code == 407 ? line : \"\";
  note(code, \"HTTP/1.%d %d %s %s %s%s%s\\n\", 1, code, name, more, name, extra, more);
  return code;
}
__attribute__((noinline)) void bound(const char *name) {
  note(4, \"was not able to bind to %s of the interface, nor to any other%s\\n\", name, \"\");
}
int main(int count, char **words) {
  bound(words[0]);
  puts(count > 2 ? \"allow\" : \"proxy-connection\");
  return head(count, words[0], \"max-age=0, must-revalidate, and long enough to be aligned\");
}
";
    let work = Workdir::new("empty").expect("a folder can be made");
    let link = |linker: &str, file: &str| {
        std::fs::write(work.path().join("main.c"), SOURCE).expect("ours");
        let mut command = Command::new("gcc");
        command
            .current_dir(work.path())
            .args(["-O2", "-g", "-fPIE", "-pie", "-Wl,--build-id"])
            .args([&use_linker(linker), "main.c", "-o", file]);
        run(&mut command).expect("gcc works");
        work.path().join(file)
    };
    let first = link("bfd", "first");
    for linker in other_linkers() {
        let other = link(linker, "other");
        for (base, fixed) in [(&first, &other), (&other, &first)] {
            expect(base, fixed, &[]).unwrap_or_else(|wrong| panic!("{linker}: {wrong}"));
        }
    }
}

/// The whole way from the sources, by one job and by four.
#[test]
fn built_twice_by_make() {
    const MAKEFILE: &str = "\
objects := $(patsubst %.c,%.o,$(sort $(wildcard *.c)))
program: $(objects); gcc -g -Wl,--build-id -o $@ $^
%.o: %.c; gcc -O2 -g -c $< -o $@
clean: ; rm -f $(objects) program
";
    let work = Workdir::new("make").expect("a folder can be made");
    for entry in std::fs::read_dir(sources("plain")).expect("the sources are there") {
        let entry = entry.expect("it can be read");
        std::fs::copy(entry.path(), work.path().join(entry.file_name())).expect("ours");
    }
    std::fs::write(work.path().join("Makefile"), MAKEFILE).expect("ours");
    let make = |words: &[&str]| {
        let mut command = Command::new("make");
        run(command.current_dir(work.path()).args(words)).expect("make works");
    };
    for (jobs, name) in [("-j1", "first"), ("-j4", "other")] {
        make(&["clean"]);
        make(&[jobs, "program"]);
        std::fs::rename(work.path().join("program"), work.path().join(name)).expect("ours");
    }
    expect(&work.path().join("first"), &work.path().join("other"), &[]).expect("nothing differs");
}

/// A workspace of a library and a program that uses it.
#[test]
fn built_twice_by_cargo() {
    let work = Workdir::new("cargo").expect("a folder can be made");
    for (file, text) in [
        (
            "Cargo.toml",
            "[workspace]\nmembers = [\"program\", \"parts\"]\nresolver = \"2\"\n\
             [profile.release]\ndebug = true\n",
        ),
        (
            "parts/Cargo.toml",
            "[package]\nname = \"parts\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
        ),
        (
            "parts/src/lib.rs",
            "pub fn words(text: &str) -> Vec<String> {\n    \
             text.split(' ').map(|word| format!(\"<{word}>\")).collect()\n}\n",
        ),
        (
            "program/Cargo.toml",
            "[package]\nname = \"program\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
             [dependencies]\nparts = { path = \"../parts\" }\n",
        ),
        (
            "program/src/main.rs",
            "fn main() {\n    for word in std::env::args() {\n        \
             println!(\"{:?}\", parts::words(&word));\n    }\n}\n",
        ),
    ] {
        let path = work.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("ours");
        std::fs::write(path, text).expect("ours");
    }
    let build = |jobs: &str, name: &str| {
        let mut command = Command::new("cargo");
        command
            .current_dir(work.path())
            .args(["build", "--quiet", "--release", "--offline", jobs])
            .env("CARGO_TARGET_DIR", work.path().join("target"))
            .env("RUSTFLAGS", "-C link-arg=-Wl,--build-id");
        run(&mut command).expect("cargo works");
        let target = work.path().join("target");
        std::fs::rename(target.join("release/program"), work.path().join(name)).expect("ours");
        std::fs::remove_dir_all(target).expect("ours");
    };
    build("-j1", "first");
    build("-j4", "other");
    expect(&work.path().join("first"), &work.path().join("other"), &[]).expect("nothing differs");
}
