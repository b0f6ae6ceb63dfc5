//! What a person may judge, how it is said, and where it is written down.

mod golden;
mod program;
mod server;

use std::path::{Path, PathBuf};

use program::{Ran, run_in};
use serde_json::Value;

/// A pair that is refused for `limit` (R-INIT) and for nothing else.
fn pair(name: &str) -> PathBuf {
    let process = std::process::id();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("judged-{name}-{process}"));
    for (version, limit) in [("base", 100), ("fixed", 50)] {
        let place = folder.join(version);
        let check = if version == "base" {
            ""
        } else {
            "if (n < 0) return 0;"
        };
        let source = format!(
            "#include <stdio.h>\nint limit = {limit};\n\
             __attribute__((noipa)) int check(int n) {{ {check} return n < limit++; }}\n\
             int main(int n, char **v) {{ (void)v; return printf(\"%d\\n\", check(n)) < 0; }}\n"
        );
        server::build(&place, &source);
    }
    folder
}

fn build(folder: &Path, more: &[&str]) -> Ran {
    let words = ["build", "base/server", "fixed/server", "-o", "fix.patch"];
    run_in(folder, &[&words[..], more].concat())
}

#[test]
fn a_judgement_makes_the_patch_and_stays_in_it() {
    let folder = pair("kept");
    assert_eq!(build(&folder, &[]).code, 1);
    let why = "check() sets it at its first call";
    let ran = build(&folder, &["--allow", "R-INIT=limit", "--because", why]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains(why), "{}", ran.stdout);
    let ran = run_in(&folder, &["inspect", "--json", "fix.patch"]);
    let dump: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let expected = serde_json::json!([{"rule": "R-INIT", "name": "limit", "because": why}]);
    assert_eq!(dump["judgements"], expected);
    let text = run_in(&folder, &["inspect", "fix.patch"]).stdout;
    assert!(text.contains(&format!("R-INIT limit: {why}")), "{text}");
}

#[test]
fn diff_tells_what_is_allowed_from_what_is_refused() {
    let folder = pair("diff");
    let words = ["diff", "--json", "base/server", "fixed/server"];
    let judged = ["--allow", "R-INIT=limit", "--because", "it is set again"];
    let ran = run_in(&folder, &[&words[..], &judged].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let diff: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let finding = &diff["findings"][0];
    assert_eq!(finding["severity"], "allowed");
    assert_eq!(finding["because"], "it is set again");
}

#[test]
fn a_judgement_of_nothing_lists_what_there_is() {
    let folder = pair("nothing");
    let ran = build(&folder, &["--allow", "R-INIT=limits", "--because", "so"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("\n  R-INIT=limit\n"), "{}", ran.stderr);
    assert!(!folder.join("fix.patch").exists());
}

#[test]
fn what_is_not_known_cannot_be_allowed() {
    let folder = pair("never");
    for rule in ["R-SYMBOLS", "R-BIND", "R-UNWIND", "R-TLS", "R-HOOK"] {
        let allowed = format!("{rule}=limit");
        let ran = build(&folder, &["--allow", &allowed, "--because", "so"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains(rule), "{}", ran.stderr);
    }
}

#[test]
fn a_judgement_has_a_rule_a_name_and_a_reason() {
    let folder = pair("words");
    for wrong in [
        &["--allow", "R-INIT=limit"][..],
        &["--because", "so"],
        &["--allow", "R-INIT=limit", "--because", ""],
        &["--allow", "R-NONE=limit", "--because", "so"],
        &["--allow", "limit", "--because", "so"],
    ] {
        let ran = build(&folder, wrong);
        assert_eq!(ran.code, 2, "{wrong:?} {ran:?}");
    }
}

#[test]
fn every_rule_is_explained() {
    let here = Path::new(".");
    let ran = run_in(here, &["explain", "--json"]);
    let all: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let rules = all["rules"].as_array().expect("a list");
    assert!(rules.len() >= 22);
    let text = run_in(here, &["explain"]).stdout;
    for rule in rules {
        let id = rule["id"].as_str().expect("an id");
        assert!(text.contains(id), "{id}");
        let one = run_in(here, &["explain", id]);
        assert_eq!(one.code, 0, "{one:?}");
        for part in ["meaning", "why", "remedy", "example"] {
            let part = rule[part].as_str().expect("a text");
            assert!(one.stdout.contains(part), "{id}: {part}");
        }
    }
    assert_eq!(run_in(here, &["explain", "R-NONE"]).code, 2);
    let one = |id| run_in(here, &["explain", id]).stdout;
    let told = ["R-LAYOUT", "R-STACK", "R-TLS", "A01", "A28"]
        .map(one)
        .join("\n");
    golden::compare(&Path::new("tests/golden").join("explain.txt"), &told);
}
