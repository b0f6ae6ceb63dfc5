//! Functions in which only line numbers moved: left out, unless somebody wants them.

mod program;
mod server;

use std::path::{Path, PathBuf};

use program::run_in;
use serde_json::Value;

/// The fix takes two lines above a function that names its line, and changes another one.
fn pair() -> PathBuf {
    let process = std::process::id();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lines-{process}"));
    for (version, above, mask) in [("base", "", 15), ("fixed", "/* Why.\n */\n", 7)] {
        let place = folder.join(version);
        let source = format!(
            "#include <assert.h>\n#include <stdio.h>\n{above}\
             int seen;\n__attribute__((noipa)) int checked(int n) {{\n  seen = n;\n  \
             assert(n > 0);\n  return n + 1;\n}}\n\
             __attribute__((noipa)) int repaired(int n) {{ return n & {mask}; }}\n\
             int main(int n, char **v) {{\n  (void)v;\n  \
             return printf(\"%d\\n\", checked(n) + repaired(n)) < 0;\n}}\n"
        );
        server::build(&place, &source);
    }
    folder
}

fn names(list: &Value) -> Vec<&str> {
    let functions = list.as_array().expect("a list").iter();
    let names = functions.map(|function| function["name"].as_str().expect("a name"));
    names.collect()
}

#[test]
fn only_who_wants_them_gets_line_numbers() {
    let folder = pair();
    let with: &[&str] = &["--keep-line-changes"];
    let told: [(&[&str], &[&str], &[&str]); 2] = [
        (&[], &["repaired"], &["checked"]),
        (with, &["checked", "repaired"], &[]),
    ];
    for (option, hot, left_out) in told {
        let files = ["base/server", "fixed/server"];
        let ran = run_in(&folder, &[&["diff", "--json"], option, &files].concat());
        let diff: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
        assert_eq!(names(&diff["hot"]), hot, "{ran:?}");
        assert_eq!(names(&diff["left_out"]), left_out, "{ran:?}");
        let ran = run_in(&folder, &[&["diff"], option, &files].concat());
        let text = ran.stdout;
        let offered = text.contains("left out: 1 function in which only line numbers moved");
        assert_eq!(offered, option.is_empty(), "{text}");
        assert_eq!(ran.stderr, "");
        let patch = format!("{}.patch", option.len());
        let ran = run_in(
            &folder,
            &[&["build", "-o", &patch], option, &files].concat(),
        );
        assert_eq!(ran.code, 0, "{ran:?}");
        let ran = run_in(&folder, &["inspect", "--json", &patch]);
        let dump: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
        let replaced = dump["redirects"].as_array().expect("a list").len();
        assert_eq!(replaced, hot.len(), "{dump:#}");
    }
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}
