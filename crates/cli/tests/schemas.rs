//! The published schemas are what the program prints.
//!
//! To renew them after a change of the output: `INVIVO_BLESS=1 cargo test -p invivo-cli`.

mod golden;
mod program;

use std::path::Path;

use golden::compare;
use program::{Ran, run_in};

fn invivo(words: &[&str]) -> Ran {
    run_in(Path::new("."), words)
}

#[test]
fn published_schemas_are_those_of_the_program() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    for name in [
        "audit",
        "diff",
        "build",
        "inspect",
        "plan",
        "windows-plan",
        "outcome",
        "blocking",
        "status",
        "list",
        "symbols",
        "explain",
        "image",
        "object",
        "check",
        "exchange",
        "final",
        "xen",
        "xen-outcome",
        "signature",
        "payload",
        "check-payload",
        "progress",
    ] {
        let ran = invivo(&["schema", name]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let schema: serde_json::Value =
            serde_json::from_str(&ran.stdout).expect("a schema is one JSON object");
        assert!(
            schema["properties"]["schema"].is_object(),
            "{name} names its version"
        );
        compare(&docs.join(format!("{name}.json")), &ran.stdout);
    }
}

#[test]
fn a_schema_of_nothing_is_a_usage_error() {
    assert_eq!(invivo(&["schema", "nothing"]).code, 2);
}
