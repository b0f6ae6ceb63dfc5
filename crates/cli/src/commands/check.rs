//! `invivo check`

use std::path::Path;

use invivo_format::hotp1::{self, Rule};
use invivo_format::hpat::{Options, Report, Weight, validate};
use invivo_image::Image;
use invivo_image::pe::PeImage;
use invivo_patch::{Hex, Patch};
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Check;
use crate::commands::payload;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::images::{load_pe, read_file};
use crate::output::{Output, counted};
use crate::patch_file::{PatchFile, final_of, is_patch, parse};

/// `check --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Checked {
    schema: &'static str,
    file: String,
    /// The build that it was held against.
    base: Option<String>,
    /// True if nothing forbids the patch.
    sound: bool,
    findings: Vec<FindingDump>,
    /// Findings beyond the first of a rule, which are only counted.
    more: Vec<More>,
    /// Rules whose part about the base was not looked at, since no base was given.
    without_base: Vec<&'static str>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct FindingDump {
    /// The rule; `invivo explain` tells more.
    rule: &'static str,
    /// `refused`, or `warned` where the patch works all the same.
    weight: &'static str,
    /// `kernel` if Windows was seen to refuse it, `strict` if only Invivo does.
    by: &'static str,
    text: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct More {
    rule: &'static str,
    count: u64,
}

pub(crate) fn run(check: &Check, output: &Output) -> Result<u8, Failure> {
    let bytes = read_file(&check.image)?;
    if let Some(file) = for_processes(&check.image, &bytes)? {
        return for_process(check, &file, output);
    }
    if bytes.starts_with(b"\x7fELF") {
        return payload::check(check, &bytes, output);
    }
    let image = load_pe(&check.image)?;
    let base = check.base.as_deref().map(load_pe).transpose()?;
    let legacy = image.sections.iter().any(|s| hotp1::is_section(&s.name));
    let (checked, parts) = if legacy {
        checked_legacy(check, &image, base.as_ref())
    } else if hotp1::is_cold(&image) {
        checked_cold(check, &image, base.as_ref())
    } else {
        let options = Options {
            base: base.as_ref(),
            capacity: Some(check.capacity),
        };
        let report = validate(&image, &options);
        (checked(check, &report), records(&report))
    };
    output.data(&checked, || print(&checked, &parts))?;
    Ok(if checked.sound { 0 } else { REFUSED })
}

/// A patch for processes that the bytes are or hold. To read one is to hold it against all that a patch
/// must be, so that what is left to ask is whether it fits a base.
fn for_processes(path: &Path, bytes: &[u8]) -> Result<Option<PatchFile>, Failure> {
    let is_one = !PeImage::is_pe(bytes) && (is_patch(bytes) || final_of(path, bytes)?.is_some());
    is_one.then(|| parse(path, bytes)).transpose()
}

fn for_process(check: &Check, file: &PatchFile, output: &Output) -> Result<u8, Failure> {
    let patch = &file.patch;
    if let Some(path) = &check.base {
        let base = Image::parse(read_file(path)?, None)
            .map_err(|error| Failure::new(USAGE, format!("{}: {error}", path.display())))?;
        fits(patch, &base).map_err(|why| {
            let text = format!(
                "{} is not for {}: {why}",
                check.image.display(),
                path.display()
            );
            Failure::new(REFUSED, text).hint("see what it is for with: invivo inspect PATCH")
        })?;
    }
    let functions = counted(patch.redirects.len(), "function");
    let parts = format!("replaces {functions} of {}", patch.target.file_name);
    let checked = Checked {
        schema: "invivo.check/1",
        file: check.image.display().to_string(),
        base: check.base.as_ref().map(|path| path.display().to_string()),
        sound: true,
        findings: Vec::new(),
        more: Vec::new(),
        without_base: Vec::new(),
    };
    output.data(&checked, || {
        print(&checked, &parts);
        if check.base.is_none() {
            anstream::println!("without --base FILE the code that it replaces was not looked at");
        }
        anstream::println!(
            "whether a process is ready for it: invivo plan {} -p PID",
            checked.file
        );
    })?;
    Ok(0)
}

/// That all code is there which the patch expects; otherwise what is not.
fn fits(patch: &Patch, base: &Image) -> Result<(), String> {
    let id = base.build_id.as_ref().map(|id| Hex(id.0.clone()));
    if id.as_ref() != Some(&patch.target.build_id) {
        let wanted = &patch.target.build_id;
        let found = id.map_or("none".to_owned(), |id| id.to_string());
        return Err(format!("build id {wanted} is wanted, it has {found}"));
    }
    let is_there = |check: &invivo_patch::Check| {
        let at = base.base.checked_add(check.at.0)?;
        let bytes = base.bytes(at, check.size)?;
        check.is_of(bytes).then_some(())
    };
    match patch.checks.iter().find(|check| is_there(check).is_none()) {
        Some(check) => Err(format!("other code is at {}", check.at)),
        None => Ok(()),
    }
}

fn checked(check: &Check, report: &Report) -> Checked {
    let findings = report.findings.iter().map(|finding| FindingDump {
        rule: finding.rule.id(),
        weight: match finding.weight {
            Weight::Refused => "refused",
            Weight::Warned => "warned",
        },
        by: finding.judge.name(),
        text: finding.text.clone(),
    });
    let more = report.more.iter().map(|(rule, count)| More {
        rule: rule.id(),
        count: *count,
    });
    Checked {
        schema: "invivo.check/1",
        file: check.image.display().to_string(),
        base: check.base.as_ref().map(|path| path.display().to_string()),
        sound: report.is_sound(),
        findings: findings.collect(),
        more: more.collect(),
        without_base: report.without_base.iter().map(|rule| rule.id()).collect(),
    }
}

/// A module with a section `.hotp1`, and how many hooks it has in words.
fn checked_legacy(check: &Check, image: &PeImage, base: Option<&PeImage>) -> (Checked, String) {
    let (findings, hooks) = match hotp1::read(image) {
        Ok(patch) => {
            let patch = patch.unwrap_or_default();
            (hotp1::validate(image, &patch, base), patch.hooks.len())
        }
        Err(error) => (vec![error], 0),
    };
    let about_target = [Rule::B03, Rule::B07, Rule::B14];
    let checked = checked_by(check, findings, base, &about_target);
    (checked, format!("{hooks} hooks"))
}

/// A file that was patched on disk.
fn checked_cold(check: &Check, image: &PeImage, base: Option<&PeImage>) -> (Checked, String) {
    let findings = hotp1::validate_cold(image, base);
    let checked = checked_by(check, findings, base, &[Rule::B17]);
    (checked, "patched on disk".to_owned())
}

fn checked_by(
    check: &Check,
    findings: Vec<hotp1::Finding>,
    base: Option<&PeImage>,
    about_base: &[Rule],
) -> Checked {
    Checked {
        schema: "invivo.check/1",
        file: check.image.display().to_string(),
        base: check.base.as_ref().map(|path| path.display().to_string()),
        sound: findings.is_empty(),
        findings: findings
            .into_iter()
            .map(|finding| FindingDump {
                rule: finding.rule.id(),
                weight: "refused",
                by: "strict",
                text: finding.text,
            })
            .collect(),
        more: Vec::new(),
        without_base: match base {
            Some(_) => Vec::new(),
            None => about_base.iter().map(|rule| rule.id()).collect(),
        },
    }
}

/// How many records there are, in words.
fn records(report: &Report) -> String {
    let records: usize = report.parsed.as_ref().map_or(0, |parsed| {
        let chunks = parsed.patch.bases.iter().flat_map(|base| &base.chunks);
        chunks.map(|chunk| chunk.records.len()).sum()
    });
    format!("{records} records")
}

fn print(checked: &Checked, parts: &str) {
    for finding in &checked.findings {
        let rule = finding.rule;
        // Of older Windows it is not known what exactly it refused.
        let refuses = match finding.by {
            _ if rule.starts_with('B') => "",
            "kernel" => " (Windows refuses it)",
            _ => " (Windows may let it through)",
        };
        match finding.weight {
            "warned" => anstream::println!("{} {}", rule.yellow().bold(), finding.text),
            _ => anstream::println!("{} {}{refuses}", rule.red().bold(), finding.text),
        }
    }
    for more in &checked.more {
        anstream::println!("{} and {} more", more.rule.bold(), more.count);
    }
    if !checked.findings.is_empty() {
        anstream::println!();
    }
    let file = &checked.file;
    if checked.sound {
        let all = if checked.without_base.is_empty() {
            "sound"
        } else {
            "sound as far as it was looked at"
        };
        anstream::println!("{file}: {all}, {parts}");
    } else {
        anstream::println!(
            "{file}: not sound; `invivo explain {}` tells more",
            checked.findings[0].rule
        );
    }
    if !checked.without_base.is_empty() {
        let rules = checked.without_base.join(", ");
        anstream::println!("without --base, {rules} were held against the patch alone");
    }
}
