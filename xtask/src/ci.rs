//! What must pass before a change is taken.

use std::time::Duration;

use anyhow::Result;

use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{process, room, street, test};

const LIMIT: Duration = Duration::from_secs(1200);

/// Runs every check to its end, so that one run shows all that is wrong. The
/// last line is the sum.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    room::for_tests(workspace)?;
    let mut steps = Steps::default();
    let mut cargo = |name, arguments: &[&str]| {
        println!("ci: {name}");
        let mut command = workspace.cargo();
        command.args(arguments).env("RUSTDOCFLAGS", "-D warnings");
        steps.check(name, || process::succeeds(&mut command, LIMIT));
    };
    cargo("style", &["fmt", "--all", "--check"]);
    let lints = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    cargo("lints", &lints);
    let documentation = ["doc", "--quiet", "--workspace", "--no-deps"];
    cargo("documentation", &documentation);
    println!("ci: fuzz targets");
    let mut fuzz = workspace.cargo();
    fuzz.current_dir(workspace.root.join("fuzz"))
        .args(["build", "--quiet"])
        .env("RUSTFLAGS", "--cfg fuzzing")
        // That they build is what is checked here; 'cargo xtask fuzz' makes them quick.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_TARGET_DIR", workspace.target.join("fuzz"));
    steps.check("fuzz targets", || process::succeeds(&mut fuzz, LIMIT));
    steps.check("street", || street::run(workspace));
    test::everything(workspace, &mut steps);
    Ok(steps.finish())
}
