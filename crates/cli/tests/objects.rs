//! Object files on the command line.

#[path = "../../format/tests/payload/kept.rs"]
mod kept;
mod program;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use program::run_in;
use serde_json::Value;

/// The folders `base` and `fixed` with `common/count.o`, and with `common/same.o`, which does
/// not differ.
fn pair(name: &str, flags: &[&str]) -> PathBuf {
    let process = std::process::id();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("objects-{name}-{process}"));
    for (version, by) in [("base", 3), ("fixed", 5)] {
        let place = folder.join(version).join("common");
        std::fs::create_dir_all(&place).expect("a folder can be made");
        let count =
            format!("extern int show(int);\nint count(int n) {{ return show(n * {by}) + 1; }}\n");
        let same = "extern int show(int);\nint same(int n) { return show(n) + 2; }\n";
        for (name, source) in [("count", count.as_str()), ("same", same)] {
            std::fs::write(folder.join(format!("{name}.c")), source).expect("written");
            let done = Command::new("cc")
                .current_dir(&folder)
                .args([
                    "-O2",
                    "-g",
                    "-fPIC",
                    "-fvisibility=hidden",
                    "-ffunction-sections",
                ])
                .args(["-fno-asynchronous-unwind-tables", "-fcf-protection=none"])
                .args(flags)
                .arg("-c")
                .arg(format!("{name}.c"))
                .arg("-o")
                .arg(place.join(format!("{name}.o")))
                .status()
                .expect("a C compiler is installed (apt-get install gcc)");
            assert!(done.success());
        }
    }
    folder
}

#[test]
fn folders_and_single_files_are_compared() {
    let folder = pair("diff", &[]);
    for paths in [
        ["base", "fixed"],
        ["base/common/count.o", "fixed/common/count.o"],
    ] {
        let ran = run_in(&folder, &["diff", paths[0], paths[1], "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let said: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!(said["hot"][0]["name"], "count");
        assert_eq!(said["hot"].as_array().map(Vec::len), Some(1));
    }
    let same = run_in(&folder, &["diff", "base", "base"]);
    assert!(
        same.stdout.starts_with("0 of 2 functions differ"),
        "{}",
        same.stdout
    );
    let mixed = run_in(&folder, &["diff", "base", "fixed/common/count.o"]);
    assert_eq!(mixed.code, 2);
    assert!(mixed.stderr.contains("two folders"), "{}", mixed.stderr);
}

#[test]
fn a_payload_is_built_by_names_alone_in_less_than_a_second_and_200_megabytes() {
    let folder = pair("build", &[]);
    let id = "151b373f00112233445566778899aabbccddeeff";
    let payload = |output: &str, more: &[&str]| {
        let words = ["build", "base", "fixed", "-o", output];
        run_in(&folder, &[&words[..], more].concat())
    };
    let elf = payload("fix", &[]);
    assert_eq!(elf.code, 2, "{}", elf.stderr);
    assert!(elf.stderr.contains("--format livepatch"), "{}", elf.stderr);
    let unknown = payload("fix", &["--format", "livepatch"]);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("--xen-id"), "{}", unknown.stderr);
    // Calls are found in the hypervisor's code, and only there.
    let spliced = payload(
        "fix",
        &[
            "--format",
            "livepatch",
            "--depends",
            id,
            "--splice",
            "callers",
        ],
    );
    assert_eq!(spliced.code, 2, "{}", spliced.stderr);
    assert!(spliced.stderr.contains("--xen FILE"), "{}", spliced.stderr);
    let process = payload("fix", &["--splice", "tables,callers"]);
    assert_eq!(process.code, 2, "{}", process.stderr);
    assert!(
        process.stderr.contains("leave --splice out"),
        "{}",
        process.stderr
    );
    let begun = Instant::now();
    let built = payload(
        "fix",
        &["--format", "livepatch", "--depends", id, "--time", "--json"],
    );
    let time = begun.elapsed();
    assert_eq!(built.code, 0, "{}", built.stderr);
    let said: Value = serde_json::from_str(&built.stdout).expect("JSON");
    assert_eq!(said["functions"][0], "count");
    let again = payload("again", &["--format", "livepatch", "--depends", id]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let read = |name: &str| {
        let file = std::fs::read(folder.join(name)).expect("it was written");
        kept::keep(&file);
        file
    };
    assert_eq!(read("fix"), read("again"));
    // What depends on that one names it by its file.
    let next = payload(
        "next",
        &["--format", "livepatch", "--xen-id", id, "--depends", "fix"],
    );
    assert_eq!(next.code, 0, "{}", next.stderr);
    let own = said["build_id"].as_str().expect("a build id");
    let bytes: Vec<u8> = (0..own.len() / 2)
        .map(|at| u8::from_str_radix(&own[2 * at..2 * at + 2], 16).expect("digits"))
        .collect();
    assert!(
        read("next")
            .windows(bytes.len())
            .any(|window| window == bytes)
    );
    let memory = built.stderr.lines().find_map(|line| {
        let (number, rest) = line.trim().split_once(' ')?;
        rest.starts_with("MiB of memory")
            .then(|| number.parse::<u64>().ok())?
    });
    let memory = memory.expect("--time tells it");
    println!("a payload from two folders of object files: {time:?}, {memory} MiB");
    assert!(time < Duration::from_secs(1), "{time:?}");
    assert!(memory < 200, "{memory} MiB");
}

#[test]
fn what_has_no_types_is_refused() {
    let folder = pair("no-types", &["-g0"]);
    let ran = run_in(&folder, &["diff", "base", "fixed"]);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("R-LAYOUT"), "{}", ran.stdout);
}
