//! The street: each crate imports only crates to its left, and nobody imports
//! the chores or the tests.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// The crates, from left to right; those that share a place are neighbours and
/// do not know each other.
const STREET: &[&[&str]] = &[
    &["invivo-image"],
    &["invivo-compare"],
    &["invivo-patch", "invivo-report"],
    &["invivo-format"],
    &["invivo-trust"],
    &["invivo-apply"],
    &[
        "invivo-linux",
        "invivo-windows",
        "invivo-xen",
        "invivo-file",
    ],
    &["invivo-cli", "invivo-fleet"],
];

/// Packages that stand outside: they may look at the street, never the reverse.
const OUTSIDE: &[&str] = &[
    "xtask",
    "live-tests",
    "invivo-mutation",
    "pair-tests",
    "report-tests",
    "input-tests",
    "windows-tests",
    "xen-tests",
];

/// Checks the dependencies of every package of the workspace.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let wrong = violations(&imports(workspace)?);
    wrong.iter().for_each(|text| println!("street: {text}"));
    if wrong.is_empty() {
        println!("street: every crate imports only crates to its left");
    }
    Ok(wrong.is_empty())
}

/// One package's wish to use another.
#[derive(Debug)]
struct Import {
    from: String,
    to: String,
    for_tests: bool,
}

fn imports(workspace: &Workspace) -> Result<Vec<Import>> {
    let mut command = workspace.cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let output = process::capture(&mut command, Duration::from_secs(120))?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", output.stderr.trim());
    }
    let metadata: Value =
        serde_json::from_str(&output.stdout).context("cargo metadata is not JSON")?;
    let mut imports = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let from = package["name"]
            .as_str()
            .context("a package without a name")?;
        // A package without imports must be known as well.
        imports.push(Import {
            from: from.to_owned(),
            to: String::new(),
            for_tests: false,
        });
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            imports.push(Import {
                from: from.to_owned(),
                to: dependency["name"]
                    .as_str()
                    .context("a dependency without a name")?
                    .to_owned(),
                for_tests: dependency["kind"] == "dev",
            });
        }
    }
    Ok(imports)
}

fn place(package: &str) -> Option<usize> {
    STREET.iter().position(|crates| crates.contains(&package))
}

/// The imports that go against the street, in words.
fn violations(imports: &[Import]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Import {
        from,
        to,
        for_tests,
    } in imports
    {
        if OUTSIDE.contains(&to.as_str()) && !OUTSIDE.contains(&from.as_str()) {
            wrong.push(format!("{from} imports {to}, which nobody may import"));
        } else if OUTSIDE.contains(&from.as_str()) {
            // The chores and the live tests may look at everything else.
        } else if to.is_empty() {
            if place(from).is_none() {
                wrong.push(format!("{from} has no place in the street"));
            }
        } else if let (Some(here), Some(there)) = (place(from), place(to))
            && there >= here
            && !for_tests
        {
            wrong.push(format!("{from} imports {to}, which is not to its left"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(from: &str, to: &str, for_tests: bool) -> Import {
        Import {
            from: from.into(),
            to: to.into(),
            for_tests,
        }
    }

    #[test]
    fn left_is_allowed() {
        assert!(violations(&[import("invivo-linux", "invivo-apply", false)]).is_empty());
        assert!(violations(&[import("invivo-image", "object", false)]).is_empty());
        assert!(violations(&[import("invivo-image", "invivo-patch", true)]).is_empty());
    }

    #[test]
    fn right_and_neighbours_are_not() {
        assert_eq!(
            violations(&[import("invivo-image", "invivo-compare", false)]).len(),
            1
        );
        assert_eq!(
            violations(&[import("invivo-xen", "invivo-linux", false)]).len(),
            1
        );
        assert_eq!(violations(&[import("invivo-cli", "xtask", true)]).len(), 1);
        assert_eq!(violations(&[import("invivo-extra", "", false)]).len(), 1);
    }
}
