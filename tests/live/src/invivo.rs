//! Calling the program under test, and holding its answers against what they must be.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::binary;
use crate::run::{Ran, run};

// Longer than any time-out that a scenario gives to the tool itself.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs `invivo` with `args`.
///
/// # Errors
///
/// When it cannot be run or does not end in time.
pub fn invivo(args: &[&str]) -> Result<Ran> {
    let mut command = Command::new(binary::invivo()?);
    command.args(args);
    run(command, LIMIT)
}

/// Runs another command that runs `invivo` in turn, with the same time-out.
///
/// # Errors
///
/// As [`invivo`].
pub fn invivo_through(command: Command) -> Result<Ran> {
    run(command, LIMIT)
}

/// Runs `invivo recover`.
///
/// # Errors
///
/// As [`invivo`].
pub fn recover(pid: u32) -> Result<Ran> {
    invivo(&["recover", "-p", &pid.to_string(), "--json"])
}

/// Builds a patch; it must succeed.
///
/// # Errors
///
/// When it does not.
pub fn build(base: &Path, fixed: &Path, patch: &Path, more: &[&str]) -> Result<()> {
    let [base, fixed, out] = [base, fixed, patch].map(|path| path.display().to_string());
    let args = [&["build", &base, &fixed, "-o", &out][..], more].concat();
    let ran = invivo(&args)?;
    ran.expect_code(0)?;
    ensure!(
        patch.is_file(),
        "success was told, but there is no patch\n{}",
        ran.told()
    );
    Ok(())
}

/// Runs `invivo apply`.
///
/// # Errors
///
/// As [`invivo`].
pub fn apply(patch: &Path, pid: u32, more: &[&str]) -> Result<Ran> {
    let (patch, pid) = (patch.display().to_string(), pid.to_string());
    invivo(&[&["apply", &patch, "-p", &pid, "--json"][..], more].concat())
}

/// Runs `invivo replace`.
///
/// # Errors
///
/// As [`invivo`].
pub fn replace(patch: &Path, pid: u32) -> Result<Ran> {
    let (patch, pid) = (patch.display().to_string(), pid.to_string());
    invivo(&["replace", &patch, "-p", &pid, "--json"])
}

/// Runs `invivo revert`, of everything when `name` is none.
///
/// # Errors
///
/// As [`invivo`].
pub fn revert(name: Option<&str>, pid: u32) -> Result<Ran> {
    let pid = pid.to_string();
    let name: Vec<&str> = name.into_iter().collect();
    invivo(&[&["revert"][..], &name, &["-p", &pid, "--json"]].concat())
}

/// What `invivo list` says about one process: the patches, one JSON object each.
///
/// # Errors
///
/// When it fails or its answer is not of the published form.
pub fn listed(pid: u32) -> Result<Vec<Value>> {
    let ran = invivo(&["list", "-p", &pid.to_string(), "--json"])?;
    ran.expect_code(0)?;
    let json = ran.json("invivo.list/1")?;
    let processes = json["processes"].as_array().with_context(|| ran.told())?;
    let own = processes.iter().find(|process| process["pid"] == pid);
    Ok(own
        .and_then(|process| process["patches"].as_array())
        .cloned()
        .unwrap_or_default())
}

impl Ran {
    /// The exit code must be `code`.
    ///
    /// # Errors
    ///
    /// When it is another one.
    pub fn expect_code(&self, code: i32) -> Result<&Self> {
        ensure!(
            self.code == Some(code),
            "expected exit code {code}\n{}",
            self.told()
        );
        Ok(self)
    }

    /// The run must have failed with `code`, said so in the promised form, and named each of `words`
    /// (upper and lower case are the same).
    ///
    /// # Errors
    ///
    /// When one of this does not hold.
    pub fn expect_failure(&self, code: i32, words: &[&str]) -> Result<&Self> {
        self.expect_code(code)?;
        let told = self.stderr.lines().any(|line| line.starts_with("error: "));
        ensure!(
            told,
            "no line \"error: …\" on the standard error\n{}",
            self.told()
        );
        let said = self.stderr.to_lowercase();
        for word in words {
            ensure!(
                said.contains(&word.to_lowercase()),
                "the message does not name {word:?}\n{}",
                self.told()
            );
        }
        Ok(self)
    }

    /// The JSON object on the standard output, of the given schema.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn json(&self, schema: &str) -> Result<Value> {
        let json: Value = serde_json::from_str(&self.stdout)
            .with_context(|| format!("no JSON\n{}", self.told()))?;
        ensure!(
            json["schema"] == schema,
            "expected the schema {schema}\n{}",
            self.told()
        );
        Ok(json)
    }

    /// The run must have ended well with the one process in `state`; returns what is told about that process.
    ///
    /// # Errors
    ///
    /// When the exit code is not 0 or the state is another one.
    pub fn expect_state(&self, state: &str) -> Result<Value> {
        self.expect_code(0)?;
        let json = self.json("invivo.outcome/1")?;
        let processes = json["processes"].as_array().with_context(|| self.told())?;
        ensure!(
            processes.len() == 1,
            "expected one process\n{}",
            self.told()
        );
        ensure!(
            processes[0]["state"] == state,
            "expected the state {state:?}\n{}",
            self.told()
        );
        Ok(processes[0].clone())
    }
}
