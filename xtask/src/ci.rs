//! What must pass before a change is taken.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{process, room, street, test};

const LIMIT: Duration = Duration::from_secs(1200);

/// Runs every check to its end, so that one run shows all that is wrong. The
/// last line is the sum.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    room::for_tests(workspace)?;
    let mut tally = Tally::default();
    let mut step = |name: &str, command: &mut Command| {
        println!("ci: {name}");
        // What cannot be run, or does not end, has failed; the rest is run all
        // the same.
        let passed = match process::succeeds(command, LIMIT) {
            Ok(passed) => passed,
            Err(error) => {
                println!("ci: {error:#}");
                false
            }
        };
        if !passed {
            println!("ci: {name} failed");
        }
        tally.check(passed);
    };
    step("style", workspace.cargo().args(["fmt", "--all", "--check"]));
    step(
        "lints",
        workspace.cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
    step(
        "documentation",
        workspace
            .cargo()
            .args(["doc", "--quiet", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    );
    if workspace.root.join("fuzz").is_dir() {
        step(
            "fuzz targets",
            workspace
                .cargo()
                .current_dir(workspace.root.join("fuzz"))
                .args(["build", "--quiet"])
                .env("RUSTFLAGS", "--cfg fuzzing")
                .env("CARGO_TARGET_DIR", workspace.target.join("fuzz")),
        );
    }
    let street = street::run(workspace).unwrap_or_else(|error| {
        println!("ci: {error:#}");
        false
    });
    tally.check(street);
    tally.add(test::everything(workspace));
    println!("{tally}");
    Ok(tally.failed == 0)
}
