//! `invivo explain`

use std::str::FromStr;

use invivo_compare::{Rule, Severity};
use invivo_format::livepatch::XenVersion;
use invivo_format::{hotp1, hpat, livepatch};
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use crate::arguments::Explain;
use crate::failure::Failure;
use crate::output::Output;

/// A rule of the comparison, one of the metadata of Windows images, or one of Xen's payloads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyRule {
    Change(Rule),
    Metadata(hpat::Rule),
    Legacy(hotp1::Rule),
    Payload(livepatch::Rule),
}

impl FromStr for AnyRule {
    type Err = String;

    fn from_str(text: &str) -> Result<AnyRule, String> {
        if let Ok(rule) = text.parse() {
            return Ok(AnyRule::Metadata(rule));
        }
        if let Ok(rule) = text.parse() {
            return Ok(AnyRule::Legacy(rule));
        }
        match text.parse() {
            Ok(rule) => Ok(AnyRule::Payload(rule)),
            Err(_) => text.parse().map(AnyRule::Change),
        }
    }
}

/// `explain --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Rules {
    schema: &'static str,
    rules: Vec<Explained>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Explained {
    id: &'static str,
    /// What it demands, in one line.
    meaning: &'static str,
    /// Why it matters.
    why: &'static str,
    /// What to do where it is broken.
    remedy: &'static str,
    /// A change that breaks it.
    example: &'static str,
    /// What a finding of it may mean: `refuse` forbids the patch, `note` does not.
    severities: Vec<&'static str>,
    /// True if `--allow` may set it aside.
    may_be_allowed: bool,
    /// For metadata and payloads: `kernel` if Windows or Xen was seen to refuse it, `strict` if
    /// only Invivo does, `both` if Windows refuses a part of it.
    refused_by: Option<&'static str>,
    /// For payloads: what Xen answers, such as `upload: EINVAL`; or that it does harm.
    xen: Option<String>,
}

impl Explained {
    fn of(rule: AnyRule) -> Explained {
        match rule {
            AnyRule::Change(rule) => Explained::change(rule),
            AnyRule::Metadata(rule) => Explained::metadata(rule),
            AnyRule::Legacy(rule) => Explained::legacy(rule),
            AnyRule::Payload(rule) => Explained::payload(rule),
        }
    }

    fn legacy(rule: hotp1::Rule) -> Explained {
        Explained {
            id: rule.id(),
            meaning: rule.meaning(),
            why: rule.why(),
            remedy: rule.remedy(),
            example: rule.example(),
            severities: vec!["refuse"],
            may_be_allowed: false,
            refused_by: Some("strict"),
            xen: None,
        }
    }

    fn payload(rule: livepatch::Rule) -> Explained {
        let mut answers: Vec<String> = Vec::new();
        for version in XenVersion::all() {
            let effect = rule.effect(version);
            let action = effect.action();
            let answer = match effect.errno() {
                Some(errno) => format!("{action}: {errno}"),
                None => format!("{action}: harm"),
            };
            match answers.last() {
                Some(last) if last.starts_with(&answer) => {}
                Some(_) => answers.push(format!("{answer} from {version} on")),
                None => answers.push(answer),
            }
        }
        let is_harm = answers.iter().any(|answer| answer.contains("harm"));
        Explained {
            id: rule.id(),
            meaning: rule.meaning(),
            why: rule.why(),
            remedy: rule.remedy(),
            example: rule.example(),
            severities: vec!["refuse"],
            may_be_allowed: false,
            refused_by: Some(if is_harm { "strict" } else { "kernel" }),
            xen: Some(answers.join(", ")),
        }
    }

    fn metadata(rule: hpat::Rule) -> Explained {
        let about = rule.about();
        Explained {
            id: rule.id(),
            meaning: about.meaning,
            why: about.why,
            remedy: about.remedy,
            example: about.example,
            severities: rule.weights().iter().map(weight).collect(),
            may_be_allowed: false,
            refused_by: Some(about.judge.name()),
            xen: None,
        }
    }

    fn change(rule: Rule) -> Explained {
        let about = rule.about();
        Explained {
            id: rule.id(),
            meaning: about.meaning,
            why: about.why,
            remedy: about.remedy,
            example: about.example,
            severities: rule.severities().iter().map(severity).collect(),
            may_be_allowed: rule.may_be_allowed(),
            refused_by: None,
            xen: None,
        }
    }
}

pub(crate) fn run(explain: &Explain, output: &Output) -> Result<u8, Failure> {
    let rules = match explain.rule {
        Some(rule) => vec![Explained::of(rule)],
        None => {
            let changes = Rule::ALL.into_iter().map(AnyRule::Change);
            let metadata = hpat::Rule::ALL.into_iter().map(AnyRule::Metadata);
            let legacy = hotp1::Rule::ALL.iter().copied().map(AnyRule::Legacy);
            let payloads = livepatch::Rule::ALL.iter().copied().map(AnyRule::Payload);
            let all = changes.chain(metadata).chain(legacy).chain(payloads);
            all.map(Explained::of).collect()
        }
    };
    let rules = Rules {
        schema: "invivo.explain/1",
        rules,
    };
    output.data(&rules, || match explain.rule {
        Some(_) => rules.rules.iter().for_each(print),
        None => rules.rules.iter().for_each(print_line),
    })?;
    Ok(0)
}

fn severity(severity: &Severity) -> &'static str {
    match severity {
        Severity::Refuse => "refuse",
        Severity::Allowed => "allowed",
        Severity::Note => "note",
    }
}

fn weight(weight: &hpat::Weight) -> &'static str {
    match weight {
        hpat::Weight::Refused => "refuse",
        hpat::Weight::Warned => "note",
    }
}

fn print_line(rule: &Explained) {
    anstream::println!("{:<14} {}", rule.id.bold(), rule.meaning);
}

fn print(rule: &Explained) {
    anstream::println!("{}  {}\n", rule.id.bold(), rule.meaning);
    anstream::println!("{} {}", "why:    ".cyan(), rule.why);
    anstream::println!("{} {}", "remedy: ".cyan(), rule.remedy);
    anstream::println!("{} {}", "example:".cyan(), rule.example);
    let severity = match rule.severities[..] {
        ["note"] => "a note: it forbids nothing",
        ["refuse"] => "a refusal",
        _ => "a refusal or a note, as the case is",
    };
    anstream::println!("{} {severity}", "finding:".cyan());
    match rule.refused_by {
        _ if rule.xen.is_some() => {
            let answer = rule.xen.as_deref().unwrap_or_default();
            anstream::println!("{} {answer}", "Xen:    ".cyan());
        }
        Some("kernel") => anstream::println!("{} Windows, too", "refused:".cyan()),
        Some("strict") => anstream::println!("{} Invivo only", "refused:".cyan()),
        Some(_) => anstream::println!(
            "{} in part by Windows, as a whole by Invivo",
            "refused:".cyan()
        ),
        None => {}
    }
    let allowed = if rule.may_be_allowed {
        format!("--allow {}=NAME --because \"…\"", rule.id)
    } else {
        "never: it is no matter of judgement".to_owned()
    };
    anstream::println!("{} {allowed}", "allowed:".cyan());
}
