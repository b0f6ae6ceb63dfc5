//! What is expected of a payload, for a person.

use owo_colors::OwoColorize;

use super::{CheckedPayload, PayloadFinding};

/// Prints findings, then what Xen answers, then whether that is sound.
pub(super) fn print(checked: &CheckedPayload) {
    print_findings(checked);
    let (file, version) = (&checked.file, &checked.xen_version);
    let answers = |upload: &str, apply: &Option<String>| match apply {
        Some(apply) => format!("upload {upload}, apply {apply}"),
        None => format!("upload {upload}"),
    };
    let expected = answers(&checked.upload, &checked.apply);
    anstream::println!("{file}: Xen {version} is expected to answer: {expected}");
    for other in &checked.elsewhere {
        let expected = answers(&other.upload, &other.apply);
        anstream::println!("  Xen {}: {expected}", other.xen_version);
    }
    if checked.replace_unpatches {
        anstream::println!(
            "do not replace with it: Xen takes all other payloads back before it finds that out, and goes on \
             without any"
        );
    }
    let limits = |finding: &&PayloadFinding| LIMITS.contains(&finding.action);
    match checked.findings.iter().find(|finding| !limits(finding)) {
        // Where it was to replace others a limit forbids it, too.
        None if !checked.sound => anstream::println!("not sound"),
        Some(first) => {
            anstream::println!("not sound; `invivo explain {}` tells more", first.rule);
        }
        None if checked.without_xen.is_empty() => anstream::println!("sound"),
        None => anstream::println!("sound as far as it was looked at"),
    }
    if !checked.without_xen.is_empty() {
        let rules = checked.without_xen.join(", ");
        let given = match (&checked.below, &checked.xen) {
            (Some(_), _) => {
                format!("from what Xen tells; see also: invivo check {file} --xen XEN-SYMS")
            }
            (None, Some(_)) => "from this --xen".to_owned(),
            (None, None) => "without --xen".to_owned(),
        };
        anstream::println!("{rules} could not be looked at in full {given}");
    }
}

/// Actions that a payload need not be able to.
const LIMITS: [&str; 2] = ["apply again", "replace"];

fn print_findings(checked: &CheckedPayload) {
    for finding in &checked.findings {
        let (rule, action) = (finding.rule, finding.action);
        let effect = match &finding.errno {
            Some(errno) => format!("{action}: {errno}"),
            None => format!("{action}: Xen does harm"),
        };
        if LIMITS.contains(&action) {
            anstream::println!("{} {} ({effect})", rule.yellow().bold(), finding.text);
        } else {
            anstream::println!("{} {} ({effect})", rule.red().bold(), finding.text);
        }
    }
    if checked.more {
        anstream::println!("and more");
    }
    if !checked.findings.is_empty() {
        anstream::println!();
    }
}
