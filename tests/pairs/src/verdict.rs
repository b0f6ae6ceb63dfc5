//! What `invivo diff` says, held against what a case demands.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use live_tests::binary::invivo;
use live_tests::run::run;
use serde_json::Value;

use crate::build::{Version, build};
use crate::case::{Case, Demand, Expected};

const LIMIT: Duration = Duration::from_secs(120);

/// Builds a case and checks both of its changes.
///
/// # Errors
/// What is said and was not demanded, or was demanded and is not said.
pub fn check(case: &Case, folder: &Path) -> Result<()> {
    let base = build(case, Version::Base, folder)?;
    for (version, demand) in [(Version::Fixed, &case.fixed), (Version::Near, &case.near)] {
        let changed = build(case, version, folder)?;
        let name = case.source.file_name().context("a case without a name")?;
        let name = name.to_string_lossy();
        compare((&base, &changed), &name, demand).with_context(|| format!("{version:?}"))?;
        if demand.asks_for_patch() {
            let patch = folder.join(format!("{version:?}.patch"));
            carries((&base, &changed), &patch, demand).with_context(|| format!("{version:?}"))?;
        }
    }
    Ok(())
}

fn compare((base, changed): (&Path, &Path), source: &str, demand: &Demand) -> Result<()> {
    let mut command = Command::new(invivo()?);
    command.args(["diff", "--json"]).arg(base).arg(changed);
    let ran = run(command, LIMIT)?;
    let said: Value = serde_json::from_str(&ran.stdout).with_context(|| ran.told())?;
    let mut found = Vec::new();
    for finding in said["findings"].as_array().context("no findings")? {
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        found.push(Found {
            severity: text("severity"),
            rule: text("rule"),
            subject: text("subject"),
            // Where a place of its own is not given, the text has it.
            said: format!("{} {}", text("place"), text("text")),
        });
    }
    for wanted in &demand.findings {
        ensure!(
            found.iter().any(|finding| finding.is(wanted, source)),
            "not found: {wanted:?}\n{}",
            ran.stdout
        );
    }
    let refused = found.iter().filter(|finding| finding.severity == "refuse");
    for refusal in refused {
        ensure!(
            demand
                .findings
                .iter()
                .any(|wanted| refusal.is(wanted, source)),
            "refused without cause: {refusal:?}\n{}",
            ran.stdout
        );
    }
    let mut quiet = found.iter().filter(|one| demand.quiet.contains(&one.rule));
    if let Some(said) = quiet.next() {
        anyhow::bail!("said without cause: {said:?}\n{}", ran.stdout);
    }
    ensure!(
        ran.code == Some(i32::from(!demand.accept)),
        "the exit code does not say so\n{}",
        ran.told()
    );
    // A near miss that changes nothing would be accepted by anything.
    let hot = said["hot"].as_array().context("no hot functions")?;
    ensure!(
        !demand.accept || !hot.is_empty(),
        "nothing changed\n{}",
        ran.stdout
    );
    let names = hot.iter().filter_map(|hot| hot["name"].as_str());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    ensure!(
        demand.hot.is_empty() || demand.hot == names,
        "{names:?} differ, and not {:?}",
        demand.hot
    );
    Ok(())
}

/// Holds the patch itself against what is demanded.
fn carries((base, changed): (&Path, &Path), patch: &Path, demand: &Demand) -> Result<()> {
    let mut command = Command::new(invivo()?);
    command
        .args(["build", "--json"])
        .args([base, changed])
        .arg("-o")
        .arg(patch);
    let ran = run(command, LIMIT)?;
    ensure!(ran.code == Some(0), "{}", ran.told());
    let built: Value = serde_json::from_str(&ran.stdout).with_context(|| ran.told())?;
    let mut command = Command::new(invivo()?);
    command.args(["inspect", "--json"]).arg(patch);
    let ran = run(command, LIMIT)?;
    let said: Value = serde_json::from_str(&ran.stdout).with_context(|| ran.told())?;
    let redirects = said["redirects"].as_array().context("no redirects")?;
    for (name, hooked) in &demand.hooks {
        // Names of Rust have more around them.
        let mut named = redirects.iter().filter(|redirect| {
            let function = redirect["function"].as_str().unwrap_or_default();
            function == name || function.contains(&format!("{}{name}", name.len()))
        });
        let redirect = named
            .next()
            .with_context(|| format!("{name} is not replaced"))?;
        ensure!(
            redirect["hooked"] == *hooked,
            "{name} should {}be hooked\n{}",
            if *hooked { "" } else { "not " },
            ran.stdout
        );
    }
    if let Some(apart) = demand.apart {
        ensure!(said["order"]["quiescent"] == apart, "{}", ran.stdout);
        let findings = built["findings"].as_array().context("no findings")?;
        let mut texts = findings
            .iter()
            .filter_map(|finding| finding["text"].as_str());
        let told = texts.any(|text| text.contains("no thread is inside"));
        ensure!(told == apart, "why it waits is not told\n{built:#}");
    }
    let sections = said["sections"].as_array().context("no sections")?;
    for name in &demand.copies {
        let copied = sections.iter().any(|section| {
            let section = section["name"].as_str().unwrap_or_default();
            section.starts_with(".rodata.") && section.contains(name)
        });
        ensure!(copied, "{name} is not copied\n{}", ran.stdout);
    }
    Ok(())
}

/// A finding as it is said.
#[derive(Debug)]
struct Found {
    severity: String,
    rule: String,
    subject: String,
    said: String,
}

impl Found {
    fn is(&self, wanted: &Expected, source: &str) -> bool {
        let has_place = wanted.line.is_none_or(|line| {
            let place = format!("{source}:{line}");
            let mut behind = self.said.match_indices(&place);
            // Line 1 is not line 12.
            behind.any(|(at, _)| {
                let next = self.said[at + place.len()..].chars().next();
                !next.is_some_and(|next| next.is_ascii_digit())
            })
        });
        let own = (&self.severity, &self.rule, &self.subject);
        own == (&wanted.severity, &wanted.rule, &wanted.subject) && has_place
    }
}
