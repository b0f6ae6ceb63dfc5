//! One case: a source file and what its annotations demand.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// A finding that must be there, or may not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expected {
    /// `refuse` or `note`.
    pub severity: String,
    /// Such as `R-INIT`.
    pub rule: String,
    /// The function, variable or type.
    pub subject: String,
    /// The line of the source that it must be told for, if it matters.
    pub line: Option<u32>,
}

/// What must be said about one of the two changes.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    /// Every refusal, and notes that must be among the notes.
    pub findings: Vec<Expected>,
    /// True if a patch must be possible.
    pub accept: bool,
    /// The functions that differ, in order; empty where it does not matter which.
    pub hot: Vec<String>,
    /// Functions that get a hook, and such that get none.
    pub hooks: Vec<(String, bool)>,
    /// Whether old callers and new code must be kept apart.
    pub apart: Option<bool>,
    /// Rules that may say nothing.
    pub quiet: Vec<String>,
    /// Constants that the patch carries copies of.
    pub copies: Vec<String>,
    /// How many empty lines stand before the source.
    pub lines: usize,
}

impl Demand {
    /// True if something is demanded of the patch itself.
    #[must_use]
    pub fn asks_for_patch(&self) -> bool {
        !self.hooks.is_empty() || self.apart.is_some() || !self.copies.is_empty()
    }
}

/// A source file with its annotations.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file's name without its ending.
    pub name: String,
    /// Where it is.
    pub source: PathBuf,
    /// More options for the compiler, for all builds.
    pub flags: Vec<String>,
    /// More options for one of the builds: as it runs, with the change, with the near miss.
    pub own_flags: [Vec<String>; 3],
    /// The compiler of all builds, if that is not GNU's.
    pub compiler: Option<String>,
    /// The compiler of the build with the change, if that is another one.
    pub change_compiler: Option<String>,
    /// The folder in which the build with the change says that it was made, if another one.
    pub change_folder: Option<String>,
    /// What the change must bring.
    pub fixed: Demand,
    /// What the near miss must bring.
    pub near: Demand,
}

impl Case {
    /// Reads the annotations of a source file.
    ///
    /// # Errors
    /// When one is not understood, or when the case demands nothing.
    pub fn read(source: &Path) -> Result<Case> {
        let text = std::fs::read_to_string(source)
            .with_context(|| format!("cannot read {}", source.display()))?;
        let name = source.file_stem().context("a case without a name")?;
        let mut case = Case {
            name: name.to_string_lossy().into_owned(),
            source: source.to_owned(),
            flags: Vec::new(),
            own_flags: Default::default(),
            compiler: None,
            change_compiler: None,
            change_folder: None,
            fixed: Demand::default(),
            near: Demand::default(),
        };
        for line in text.lines().filter_map(|line| line.strip_prefix("//#")) {
            case.annotate(line.trim())
                .with_context(|| format!("{}: //#{line}", source.display()))?;
        }
        for demand in [&case.fixed, &case.near] {
            let refuses = demand.findings.iter().any(|f| f.severity == "refuse");
            ensure!(
                refuses != demand.accept,
                "{}: each change is refused or accepted, one of both",
                source.display()
            );
        }
        ensure!(
            case.near.accept,
            "{}: a near miss is accepted",
            source.display()
        );
        Ok(case)
    }

    fn annotate(&mut self, line: &str) -> Result<()> {
        let words = |rest: &str| rest.split_whitespace().map(str::to_owned).collect();
        // Where a file begins, which `build` cuts the source at.
        if line.starts_with("part ") {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("flags ") {
            self.flags = words(rest);
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("compiler ") {
            self.compiler = Some(rest.trim().to_owned());
            return Ok(());
        }
        let own = ["base-flags ", "change-flags ", "near-flags "];
        for (start, flags) in own.iter().zip(&mut self.own_flags) {
            if let Some(rest) = line.strip_prefix(start) {
                *flags = words(rest);
                return Ok(());
            }
        }
        if let Some(rest) = line.strip_prefix("change-compiler ") {
            self.change_compiler = Some(rest.trim().to_owned());
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("change-folder ") {
            self.change_folder = Some(rest.trim().to_owned());
            return Ok(());
        }
        let (demand, line) = match line.strip_prefix("near ") {
            Some(rest) => (&mut self.near, rest),
            None => (&mut self.fixed, line),
        };
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["accept"] => demand.accept = true,
            ["lines", number] => demand.lines = number.parse()?,
            ["hooked", name] => demand.hooks.push((name.to_owned(), true)),
            ["unhooked", name] => demand.hooks.push((name.to_owned(), false)),
            ["apart"] => demand.apart = Some(true),
            ["together"] => demand.apart = Some(false),
            ["quiet", rule] => demand.quiet.push(rule.to_owned()),
            ["copies", name] => demand.copies.push(name.to_owned()),
            ["hot", ..] => {
                let names = line.trim_start_matches("hot").split('|');
                demand.hot = names.map(|name| name.trim().to_owned()).collect();
                demand.hot.sort();
            }
            [severity @ ("refuse" | "note"), rule, subject] => {
                let (subject, line) = match subject.rsplit_once(" at ") {
                    Some((subject, line)) => (subject, Some(line.trim().parse()?)),
                    None => (subject, None),
                };
                demand.findings.push(Expected {
                    severity: severity.to_owned(),
                    rule: rule.to_owned(),
                    subject: subject.trim().to_owned(),
                    line,
                });
            }
            _ => bail!("not an annotation"),
        }
        Ok(())
    }
}
