//! The program itself, run as a user would run it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{self, Output};
use crate::workspace::Workspace;

const BUILD_LIMIT: Duration = Duration::from_secs(1200);
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// The exit code of what is not safe.
const REFUSED: i32 = 1;

/// The release build of `invivo`.
#[derive(Debug)]
pub(crate) struct Invivo {
    program: PathBuf,
}

/// How an apply or a revert went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What the tool says became of the process, such as `applied`.
    pub(crate) state: String,
    /// How many functions were redirected.
    pub(crate) hooks: u64,
    /// How the switch was made.
    pub(crate) switch: String,
    /// From the first look at the process to the end, in microseconds.
    pub(crate) wall_us: u64,
    /// How long the one thread that carried system calls was held.
    pub(crate) visited_us: u64,
    /// How long all threads stood still; 0 on the usual path.
    pub(crate) stopped_us: u64,
    /// The run of the whole program, start included.
    pub(crate) program_us: u64,
}

/// What a comparison found.
#[derive(Debug)]
pub(crate) struct Diff {
    /// The functions that have to be replaced.
    pub(crate) hot: Vec<Hot>,
    /// The functions that differ only by line numbers, and stay as they are.
    pub(crate) left_out: Vec<Hot>,
    /// What the rules say, refusals and notes.
    pub(crate) findings: Vec<Refusal>,
}

/// A function that differs.
#[derive(Debug)]
pub(crate) struct Hot {
    pub(crate) name: String,
    /// Why.
    pub(crate) reasons: Vec<HotReason>,
}

/// Why a function differs.
#[derive(Debug)]
pub(crate) struct HotReason {
    /// Such as `inlined`.
    pub(crate) kind: String,
    pub(crate) text: String,
}

/// What a person says of refusals that do no harm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judgement {
    /// Each as its rule and its subject: `R-LAYOUT=peer`.
    pub(crate) allow: &'static [&'static str],
    /// Why they do no harm.
    pub(crate) because: &'static str,
}

/// One reason not to patch.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Such as `R-INIT`.
    pub(crate) rule: String,
    /// The function, variable or type.
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.rule, self.subject, self.text)
    }
}

impl Invivo {
    /// Builds the program, unless the variable `INVIVO` names one that is to be
    /// tried instead.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        if std::env::var_os("INVIVO").is_some() {
            let program = workspace.invivo();
            if !program.is_file() {
                bail!("INVIVO names {}, which is not a program", program.display());
            }
            return Ok(Self { program });
        }
        let mut cargo = workspace.cargo();
        // As `cargo program` does.
        cargo.args(["rustc", "--quiet", "--release", "--package", "invivo-cli"]);
        cargo.args(["--bin", "invivo", "--", "-C", "target-feature=+crt-static"]);
        cargo.args(["-C", "relocation-model=static"]);
        if !process::succeeds(&mut cargo, BUILD_LIMIT)? {
            bail!("invivo does not build");
        }
        Ok(Self {
            program: workspace.invivo(),
        })
    }

    /// Runs it and returns what it said, whether it succeeded or not.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        process::capture(Command::new(&self.program).args(arguments), RUN_LIMIT)
    }

    /// Runs it; anything but success is an error that holds what it said.
    fn succeed(&self, arguments: &[&OsStr]) -> Result<Output> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            let words: Vec<_> = arguments
                .iter()
                .map(|word| word.to_string_lossy())
                .collect();
            bail!(
                "`invivo {}` ended with {}:\n{}{}",
                words.join(" "),
                output.status,
                output.stdout,
                output.stderr.trim_end()
            );
        }
        Ok(output)
    }

    /// Compares two images and writes the patch between them.
    pub(crate) fn make_patch(
        &self,
        base: &Path,
        fixed: &Path,
        patch: &Path,
        name: &str,
        label: &str,
    ) -> Result<()> {
        let refusals = self.try_patch((base, fixed), patch, (name, label), None)?;
        match refusals.first() {
            Some(refusal) => bail!("no patch: {refusal}"),
            None => Ok(()),
        }
    }

    /// Writes the final image of a pair, for the disk.
    pub(crate) fn make_final(
        &self,
        base: &Path,
        fixed: &Path,
        image: &Path,
        (name, label): (&str, &str),
        keep_layout: bool,
    ) -> Result<()> {
        let files: [&OsStr; 5] = [
            "build".as_ref(),
            base.as_ref(),
            fixed.as_ref(),
            "-o".as_ref(),
            image.as_ref(),
        ];
        let words = ["--format", "final", "--name", name, "--label", label];
        let kept = keep_layout.then_some(OsStr::new("--keep-layout"));
        let words = files.into_iter().chain(words.map(OsStr::new)).chain(kept);
        self.succeed(&words.collect::<Vec<_>>())?;
        Ok(())
    }

    /// The program's file.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Runs `install` or `uninstall`.
    pub(crate) fn exchange(&self, arguments: &[&OsStr]) -> Result<()> {
        self.succeed(arguments).map(|_| ())
    }

    /// Compares two images and writes the patch between them, or says what
    /// forbids it, less what a person has allowed; then there is no patch.
    pub(crate) fn try_patch(
        &self,
        (base, fixed): (&Path, &Path),
        patch: &Path,
        (name, label): (&str, &str),
        judgement: Option<Judgement>,
    ) -> Result<Vec<Refusal>> {
        let words: [&OsStr; 10] = [
            "build".as_ref(),
            base.as_ref(),
            fixed.as_ref(),
            "-o".as_ref(),
            patch.as_ref(),
            "--name".as_ref(),
            name.as_ref(),
            "--label".as_ref(),
            label.as_ref(),
            "--json".as_ref(),
        ];
        let mut words = words.to_vec();
        if let Some(judgement) = judgement {
            for allowed in judgement.allow {
                words.extend(["--allow", allowed].map(OsStr::new));
            }
            words.extend(["--because", judgement.because].map(OsStr::new));
        }
        let output = self.run(&words)?;
        let refusals: Vec<Refusal> = match output.status.code() {
            Some(0) => Vec::new(),
            Some(REFUSED) => refusals(&json(&output)?),
            _ => bail!(
                "invivo build ended with {}: {}",
                output.status,
                output.stderr
            ),
        };
        if patch.exists() != refusals.is_empty() {
            bail!(
                "invivo build ended with {}, which the patch contradicts",
                output.status
            );
        }
        Ok(refusals)
    }

    /// Which functions differ between two images.
    pub(crate) fn diff(&self, base: &Path, fixed: &Path) -> Result<Diff> {
        let words: [&OsStr; 4] = [
            "diff".as_ref(),
            base.as_ref(),
            fixed.as_ref(),
            "--json".as_ref(),
        ];
        let output = self.run(&words)?;
        // A pair that is not to be patched is an answer, too.
        if !matches!(output.status.code(), Some(0 | REFUSED)) {
            bail!(
                "invivo diff ended with {}: {}",
                output.status,
                output.stderr
            );
        }
        let value = json(&output)?;
        let reason = |reason: &Value| HotReason {
            kind: text(&reason["kind"]),
            text: text(&reason["text"]),
        };
        let functions = |list: &str| -> Vec<Hot> {
            let functions = value[list].as_array().into_iter().flatten();
            let function = |function: &Value| Hot {
                name: text(&function["name"]),
                reasons: each(&function["reasons"]).map(reason).collect(),
            };
            functions.map(function).collect()
        };
        Ok(Diff {
            hot: functions("hot"),
            left_out: functions("left_out"),
            findings: each(&value["findings"]).map(finding).collect(),
        })
    }

    /// Makes a patch live in a process.
    pub(crate) fn apply(&self, patch: &Path, pid: u32) -> Result<Outcome> {
        let pid = pid.to_string();
        self.outcome(&[
            "apply".as_ref(),
            patch.as_ref(),
            "-p".as_ref(),
            pid.as_ref(),
            "--json".as_ref(),
        ])
    }

    /// Makes a patch live at a moment when no thread is inside what it replaces.
    pub(crate) fn apply_quiescent(&self, patch: &Path, pid: u32) -> Result<Outcome> {
        let pid = pid.to_string();
        self.outcome(&[
            "apply".as_ref(),
            patch.as_ref(),
            "-p".as_ref(),
            pid.as_ref(),
            "--consistency".as_ref(),
            "quiescent".as_ref(),
            "--json".as_ref(),
        ])
    }

    /// Makes a patch live in a process, in the place of whichever is.
    pub(crate) fn replace(&self, patch: &Path, pid: u32) -> Result<Outcome> {
        let pid = pid.to_string();
        self.outcome(&[
            "replace".as_ref(),
            patch.as_ref(),
            "-p".as_ref(),
            pid.as_ref(),
            "--json".as_ref(),
        ])
    }

    /// Makes a patch live in every process that runs the program; how many there were.
    pub(crate) fn apply_all(&self, patch: &Path) -> Result<usize> {
        let arguments: [&OsStr; 4] = [
            "apply".as_ref(),
            patch.as_ref(),
            "--all".as_ref(),
            "--json".as_ref(),
        ];
        let value: Value = json(&self.succeed(&arguments)?)?;
        let processes = value["processes"].as_array().context("no processes")?;
        let applied = |process: &&Value| process["state"] == "applied";
        Ok(processes.iter().filter(applied).count())
    }

    /// Computes what an apply would do, and does nothing.
    pub(crate) fn plan(&self, patch: &Path, pid: u32) -> Result<()> {
        let pid = pid.to_string();
        self.succeed(&["plan".as_ref(), patch.as_ref(), "-p".as_ref(), pid.as_ref()])
            .map(|_| ())
    }

    /// Takes a patch back.
    pub(crate) fn revert(&self, name: &str, pid: u32) -> Result<Outcome> {
        let pid = pid.to_string();
        self.outcome(&[
            "revert".as_ref(),
            name.as_ref(),
            "-p".as_ref(),
            pid.as_ref(),
            "--json".as_ref(),
        ])
    }

    fn outcome(&self, arguments: &[&OsStr]) -> Result<Outcome> {
        let begun = Instant::now();
        let output = self.succeed(arguments)?;
        let program_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let value: Value = json(&output)?;
        let process = &value["processes"][0];
        let number = |field: &str| {
            process[field]
                .as_u64()
                .with_context(|| format!("the outcome has no `{field}`: {process}"))
        };
        let text = |field: &str| process[field].as_str().unwrap_or("not said").to_owned();
        Ok(Outcome {
            state: text("state"),
            hooks: number("hooks")?,
            switch: text("switch"),
            wall_us: number("wall_us")?,
            visited_us: number("visited_us")?,
            stopped_us: number("stopped_us")?,
            program_us,
        })
    }

    /// The names of the patches that are applied in a process.
    pub(crate) fn applied(&self, pid: u32) -> Result<Vec<String>> {
        let pid = pid.to_string();
        let output = self.succeed(&[
            "list".as_ref(),
            "-p".as_ref(),
            pid.as_ref(),
            "--json".as_ref(),
        ])?;
        let value = json(&output)?;
        let patches = value["processes"][0]["patches"].as_array();
        Ok(patches
            .into_iter()
            .flatten()
            .filter(|patch| patch["state"] == "applied")
            .filter_map(|patch| Some(patch["name"].as_str()?.to_owned()))
            .collect())
    }
}

fn json(output: &Output) -> Result<Value> {
    serde_json::from_str(&output.stdout)
        .with_context(|| format!("invivo did not print JSON: {}", output.stdout))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The findings that forbid a live patch.
fn refusals(value: &Value) -> Vec<Refusal> {
    let findings = each(&value["findings"]);
    findings
        .filter(|finding| finding["severity"] == "refuse")
        .map(finding)
        .collect()
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn finding(finding: &Value) -> Refusal {
    Refusal {
        rule: text(&finding["rule"]),
        subject: text(&finding["subject"]),
        text: text(&finding["text"]),
    }
}
