//! What `invivo inspect` shows of a small patch, made here from two programs.
//!
//! Renew the expected output with `INVIVO_BLESS=1 cargo test -p invivo-cli`.

mod golden;
mod program;

use std::path::{Path, PathBuf};
use std::process::Command;

use program::run_in;

const BASE: &str = "\
#include <stdio.h>
int calls = 1;
__attribute__((noipa)) int check(int length) { calls++; return length; }
int main(int n, char **v) { (void)v; printf(\"%d %d\\n\", check(n), calls); return 0; }
";

const FIXED: &str = "\
#include <stdio.h>
int calls = 1;
__attribute__((noipa)) int check(int length) {
    calls++;
    if (length > 4) { printf(\"%d is too long\\n\", length); return -1; }
    return length;
}
int main(int n, char **v) { (void)v; printf(\"%d %d\\n\", check(n), calls); return 0; }
";

fn compile(folder: &Path, version: &str, source: &str) {
    let folder = folder.join(version);
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    std::fs::write(folder.join("server.c"), source).expect("the source can be written");
    let done = Command::new("cc")
        .current_dir(&folder)
        // What distributions set differently is set here.
        .args([
            "-O2",
            "-g",
            "-fPIE",
            "-pie",
            "-fcf-protection=none",
            "-fno-stack-protector",
        ])
        .args([
            "-U_FORTIFY_SOURCE",
            "-Wl,--build-id=sha1",
            "-o",
            "server",
            "server.c",
        ])
        .output()
        .expect("a C compiler is installed (apt-get install gcc)");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A folder with the pair and its patch, `fix.patch`.
fn patched(name: &str) -> PathBuf {
    let process = std::process::id();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("inspect-{name}-{process}"));
    compile(&folder, "base", BASE);
    compile(&folder, "fixed", FIXED);
    let label = [
        "--label",
        "CVE-2024-1",
        "--label",
        "CVE-2024-2",
        "--sequence",
        "3",
    ];
    let mut words = vec!["build", "base/server", "fixed/server", "-o", "fix.patch"];
    words.extend(label);
    let ran = run_in(&folder, &words);
    assert_eq!(ran.code, 0, "{ran:?}");
    folder
}

/// Replaces what another compiler or linker would make differently: addresses, digests
/// and sizes.
fn steady(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word: String = rest
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
        let hex = word.bytes().all(|b| b.is_ascii_hexdigit());
        if word.is_empty() {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        if word.starts_with("0x") && word != "0x0" {
            out.push_str("0xADDRESS");
        } else if hex && word.len() >= 40 {
            out.push_str("DIGEST");
        } else {
            out.push_str(&word);
        }
        rest = &rest[word.len()..];
    }
    // The size of the whole file is the linker's and the writer's business.
    let lines = out.lines().map(|line| {
        if line.starts_with("size ") {
            "size        N bytes".to_owned()
        } else if line.starts_with("  \"size\": ") {
            "  \"size\": N,".to_owned()
        } else {
            line.replace(
                concat!("invivo ", env!("CARGO_PKG_VERSION")),
                "invivo VERSION",
            )
        }
    });
    lines.map(|line| line + "\n").collect()
}

fn expected(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

#[test]
fn the_text_shows_every_part() {
    let folder = patched("text");
    let ran = run_in(&folder, &["inspect", "fix.patch"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    golden::compare(&expected("inspect.txt"), &steady(&ran.stdout));
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn the_dump_holds_every_field() {
    let folder = patched("dump");
    let ran = run_in(&folder, &["inspect", "fix.patch", "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let dump: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(dump["schema"], "invivo.inspect/1");
    golden::compare(&expected("inspect.json"), &steady(&ran.stdout));
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn one_pair_gives_one_patch() {
    let folder = patched("same");
    let first = std::fs::read(folder.join("fix.patch")).expect("the patch was written");
    let words = [
        "build",
        "base/server",
        "fixed/server",
        "-o",
        "again/fix.patch",
    ];
    std::fs::create_dir(folder.join("again")).expect("a folder can be made");
    let mut words = words.to_vec();
    words.extend([
        "--label",
        "CVE-2024-1",
        "--label",
        "CVE-2024-2",
        "--sequence",
        "3",
    ]);
    assert_eq!(run_in(&folder, &words).code, 0);
    let second = std::fs::read(folder.join("again/fix.patch")).expect("the patch was written");
    assert!(first == second, "the same pair gave two different files");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn equal_programs_give_no_patch() {
    let folder = patched("equal");
    let ran = run_in(
        &folder,
        &["build", "base/server", "base/server", "-o", "none.patch"],
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("nothing to patch"), "{ran:?}");
    assert!(!folder.join("none.patch").exists());
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn a_damaged_patch_is_refused() {
    let folder = patched("damaged");
    let mut bytes = std::fs::read(folder.join("fix.patch")).expect("the patch was written");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(folder.join("bad.patch"), &bytes).expect("a file can be written");
    let ran = run_in(&folder, &["inspect", "bad.patch"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("damaged") && ran.stderr.contains("hint: "),
        "{ran:?}"
    );
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn a_pair_that_may_not_be_patched_gives_no_patch() {
    let folder = patched("refused");
    compile(&folder, "other", &FIXED.replace("calls = 1", "calls = 2"));
    let ran = run_in(
        &folder,
        &[
            "build",
            "base/server",
            "other/server",
            "-o",
            "no.patch",
            "--json",
        ],
    );
    assert_eq!(ran.code, 1, "{ran:?}");
    let built: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(built["findings"][0]["rule"], "R-INIT");
    assert_eq!(built["findings"][0]["subject"], "calls");
    assert!(built.get("patch").is_none());
    assert!(!folder.join("no.patch").exists());
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

#[test]
fn check_says_whether_a_patch_is_whole_and_its_base_there() {
    let folder = patched("check");
    let check = |words: &[&str]| run_in(&folder, &[&["check"], words].concat());
    let alone = check(&["fix.patch"]);
    assert_eq!(alone.code, 0, "{alone:?}");
    for text in [
        "fix.patch: sound, replaces 1 function of server",
        "without --base",
        "invivo plan",
    ] {
        assert!(alone.stdout.contains(text), "{text}: {alone:?}");
    }
    let with_base = check(&["fix.patch", "--base", "base/server"]);
    assert_eq!(with_base.code, 0, "{with_base:?}");
    let other = check(&["fix.patch", "--base", "fixed/server"]);
    assert_eq!(other.code, 1, "{other:?}");
    assert!(other.stderr.contains("build id"), "{other:?}");
    // The right build, but somebody changed the function in the file.
    let mut bytes = std::fs::read(folder.join("base/server")).expect("it was made");
    let image = invivo_image::Image::parse(bytes.clone().into(), None).expect("an image");
    let mut entities = image.entities.iter();
    let function = entities
        .find(|entity| entity.name() == "check")
        .expect("it is there");
    // Code lies in the file as in memory, but for what is before it.
    let code = image
        .bytes(function.addr, function.size)
        .expect("it has code");
    let mut places = bytes.windows(code.len());
    let at = places
        .position(|window| window == code)
        .expect("it is in the file");
    bytes[at + code.len() - 1] ^= 1;
    std::fs::write(folder.join("touched"), bytes).expect("a file can be written");
    let touched = check(&["fix.patch", "--base", "touched"]);
    assert_eq!(touched.code, 1, "{touched:?}");
    assert!(touched.stderr.contains("other code is at"), "{touched:?}");
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

/// A patch of processes is not sent to wherever it may go.
#[test]
fn a_patch_of_processes_wants_processes() {
    let folder = patched("processes");
    for verb in ["plan", "apply", "replace"] {
        let ran = run_in(&folder, &[verb, "fix.patch"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        for word in ["in which processes", "-p PID", "--all", "--help"] {
            assert!(ran.stderr.contains(word), "{word}: {ran:?}");
        }
    }
    for option in [&["--name", "fix"][..], &["--rendezvous", "30"]] {
        let words = [&["apply", "fix.patch", "-p", "1"], option].concat();
        let ran = run_in(&folder, &words);
        assert_eq!(ran.code, 2, "{ran:?}");
        let hint = format!("leave {} out", option[0]);
        assert!(ran.stderr.contains(&hint), "{ran:?}");
    }
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
