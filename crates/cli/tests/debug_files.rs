//! `invivo diff` finds the debug files of a program where compilers, packagers and debuggers
//! put them, without being told; a file of another build is not taken for the right one.

mod program;

use std::path::{Path, PathBuf};
use std::process::Command;

use program::{Ran, run_in};
use serde_json::Value;

const SOURCE: &str = r#"
#include <stdio.h>
struct peer { int id; int state; };
static struct peer peers[4];
__attribute__((noinline)) static int limit(int x) { const int most = LIMIT; return x > most ? puts("much") : x; }
__attribute__((noinline)) int set(struct peer *p, int x) { p->state = limit(x); return p->id; }
int main(int n, char **v) { (void)v; return set(&peers[n & 3], n); }
"#;

/// A folder with two builds, `base` and `fixed`, that is removed in the end.
struct Builds(PathBuf);

impl Drop for Builds {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.0).expect("the folder is ours");
        }
    }
}

impl Builds {
    fn new(name: &str, compiler: &str, flags: &[&str]) -> Builds {
        let process = std::process::id();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{name}-{process}"));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let builds = Builds(folder);
        for (build, limit) in [("base", "-DLIMIT=70000"), ("fixed", "-DLIMIT=900")] {
            // Each is compiled in a folder of its own: files beside the object are not exchanged.
            let made = builds.0.join("made").join(build);
            std::fs::create_dir_all(&made).expect("a folder can be made");
            std::fs::write(made.join("server.c"), SOURCE).expect("the source can be written");
            let flags = [flags, &["-O2", "-c", "server.c", limit]].concat();
            run(&made, compiler, &flags);
            let program = builds.0.join(build);
            let program = program.to_string_lossy();
            run(
                &made,
                compiler,
                &["server.o", "-Wl,--build-id", "-o", &program],
            );
        }
        builds
    }

    fn run(&self, tool: &str, words: &[&str]) {
        run(&self.0, tool, words);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Copies a file, and makes the folders above it.
    fn copy(&self, from: &str, to: &str) {
        let to = self.path(to);
        std::fs::create_dir_all(to.parent().expect("it is below the folder")).expect("ours");
        std::fs::copy(self.path(from), to).expect("there is such a file");
    }

    fn drop(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() {
            std::fs::remove_dir_all(path).expect("the folder is ours");
        } else {
            std::fs::remove_file(path).expect("there is such a file");
        }
    }

    /// Takes the debug data out of a build, as packagers do; they come to `NAME.debug`.
    fn strip(&self, build: &str) {
        let debug = format!("{build}.debug");
        self.run("objcopy", &["--only-keep-debug", build, &debug]);
        self.run("strip", &["--strip-all", build]);
    }

    /// Where the debug file of a build is installed, below `root`.
    fn by_build_id(&self, file: &str) -> String {
        let said = Command::new("readelf")
            .arg("-n")
            .arg(self.path(file))
            .output();
        let said = String::from_utf8(said.expect("readelf is installed").stdout).expect("text");
        let id = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("Build ID: "));
        let (head, tail) = id.expect("it has one").split_at(2);
        format!("root/.build-id/{head}/{tail}.debug")
    }

    fn diff(&self) -> Ran {
        run_in(
            &self.0,
            &[
                "diff",
                "--json",
                "--debug-directory",
                "root",
                "base",
                "fixed",
            ],
        )
    }

    /// What a comparison says that rests on symbols and debug data.
    fn said(&self, place: &str) -> Vec<String> {
        let ran = self.diff();
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{place}: {ran:?}");
        let diff: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
        let hot = diff["hot"].as_array().expect("hot functions");
        let told = |hot: &Value| {
            let reasons = hot["reasons"].as_array().expect("reasons");
            let kinds: Vec<_> = reasons.iter().map(|reason| &reason["kind"]).collect();
            format!("{} {kinds:?}", hot["name"])
        };
        hot.iter().map(told).collect()
    }

    fn found(&self, place: &str) {
        // `source` is only said where there are debug data.
        let said = self.said(place);
        let source = |line: &String| line.contains("limit") && line.contains("source");
        assert!(
            said.len() == 1 && said.iter().all(source),
            "{place}: {said:?}"
        );
    }

    fn refused(&self, code: i32, words: &[&str]) {
        let ran = self.diff();
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
    }
}

fn run(folder: &Path, tool: &str, words: &[&str]) {
    let done = Command::new(tool).current_dir(folder).args(words).output();
    let done = done.expect("it is installed (cargo xtask test does that)");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{tool} {words:?}: {said}");
}

#[test]
fn a_debug_file_is_found_by_its_build_id() {
    let builds = Builds::new("id", "gcc", &["-g"]);
    builds.found("in the programs");
    for build in ["base", "fixed"] {
        builds.strip(build);
        builds.copy(&format!("{build}.debug"), &builds.by_build_id(build));
        builds.drop(&format!("{build}.debug"));
    }
    builds.found("by build id");
    // In its place lies that of the other build.
    builds.copy(&builds.by_build_id("fixed"), &builds.by_build_id("base"));
    builds.refused(
        2,
        &["error: root/.build-id", "build id", "--base-debug FILE"],
    );
    builds.drop("root");
    builds.refused(
        1,
        &[
            "stripped, and its debug file was not found",
            "--base-debug FILE",
        ],
    );
}

#[test]
fn a_debug_file_is_found_by_its_name_and_checksum() {
    let builds = Builds::new("link", "gcc", &["-g"]);
    for build in ["base", "fixed"] {
        builds.strip(build);
        let link = format!("--add-gnu-debuglink={build}.debug");
        builds.run("objcopy", &[&link, build]);
    }
    builds.found("beside the programs");
    builds.copy("base.debug", ".debug/base.debug");
    builds.drop("base.debug");
    builds.found("in .debug");
    let folder = builds.0.canonicalize().expect("it is there");
    let below = folder.strip_prefix("/").expect("it is absolute").display();
    builds.copy(".debug/base.debug", &format!("root/{below}/base.debug"));
    builds.drop(".debug");
    builds.found("below the folder of debug files");
    // One in front of it is of another build, or is no debug file at all.
    builds.copy("fixed.debug", "base.debug");
    builds.found("behind one of another build");
    builds.copy("fixed.debug", &builds.by_build_id("base"));
    builds.found("behind two of another build");
    builds.drop("root");
    builds.refused(2, &["error:", "base.debug", "CRC", "--base-debug FILE"]);
    // The build id is right, and the contents are not those that were split off.
    builds.drop("base.debug");
    let mut bytes = std::fs::read(builds.path("fixed.debug")).expect("it is there");
    bytes.push(0);
    std::fs::write(builds.path("fixed.debug"), bytes).expect("the file is ours");
    builds.copy("made/base/server.o", "base.debug");
    builds.refused(2, &["CRC"]);
}

#[test]
fn a_supplementary_file_is_found_by_its_path_and_build_id() {
    let builds = Builds::new("dwz", "gcc", &["-g"]);
    builds.strip("base");
    builds.strip("fixed");
    builds.run("dwz", &["-m", "common", "base.debug", "fixed.debug"]);
    for build in ["base", "fixed"] {
        let link = format!("--add-gnu-debuglink={build}.debug");
        builds.run("objcopy", &[&link, build]);
    }
    builds.found("by path");
    let installed = builds.by_build_id("common");
    builds.copy("common", &installed);
    builds.drop("common");
    builds.found("by build id");
    builds.copy("fixed.debug", "common");
    builds.found("behind one of another build");
    builds.drop("root");
    builds.refused(2, &["common", "supplementary debug file", "build id"]);
    builds.drop("common");
    builds.refused(1, &["base.debug", "refer to common", "was not found"]);
}

/// The compiler leaves debug data beside the object file, and nobody packs them.
#[test]
fn split_debug_data_are_found_where_they_were_compiled_or_beside_the_program() {
    for (compiler, version) in [("gcc", "-gdwarf-4"), ("clang", "-gdwarf-5")] {
        let name = format!("dwo-{compiler}");
        let builds = Builds::new(&name, compiler, &["-g", version, "-gsplit-dwarf"]);
        builds.found("where they were compiled");
        builds.copy("made/base/server.dwo", "server.dwo");
        builds.drop("made/base/server.dwo");
        builds.found("beside the program");
        builds.copy("server.dwo", "made/base/right");
        builds.copy("made/fixed/server.dwo", "made/base/server.dwo");
        builds.found("behind one of another build");
        builds.copy("made/fixed/server.dwo", "server.dwo");
        builds.refused(2, &["server.dwo", "split debug file", "unit"]);
        builds.drop("server.dwo");
        builds.drop("made/base/server.dwo");
        builds.refused(
            1,
            &["are split", "server.dwo was not found", "llvm-dwp -e base"],
        );
    }
}

#[test]
fn packed_debug_data_are_found_beside_the_program() {
    let ways = [
        ("gcc", "-gdwarf-4", "dwp"),
        ("clang", "-gdwarf-5", "llvm-dwp"),
    ];
    for (compiler, version, pack) in ways {
        let name = format!("dwp-{compiler}");
        let builds = Builds::new(&name, compiler, &["-g", version, "-gsplit-dwarf"]);
        for build in ["base", "fixed"] {
            // That of binutils looks for the files from where it runs.
            let (program, package) = (format!("../../{build}"), format!("../../{build}.dwp"));
            let made = builds.path("made").join(build);
            run(&made, pack, &["-e", &program, "-o", &package]);
            builds.copy(
                &format!("made/{build}/server.dwo"),
                &format!("kept/{build}"),
            );
            builds.drop(&format!("made/{build}/server.dwo"));
        }
        builds.found("packed");
        // Packagers name both files after the program: `base.debug` has its package as `base.dwp`.
        builds.strip("base");
        builds.run("objcopy", &["--add-gnu-debuglink=base.debug", "base"]);
        builds.found("packed beside a stripped program");
        // A package of the build before lies where the right one should be.
        builds.copy("fixed.dwp", "base.dwp");
        builds.refused(2, &["base.dwp", "split debug file", "unit"]);
        builds.copy("kept/base", "made/base/server.dwo");
        builds.found("behind a package of another build");
    }
}
