//! Hot functions beside those that the fix itself changes: each must have a reason that ends in
//! something that the fix changed, and what no reason explains is written down with its case.

use super::Case;
use crate::invivo::{Diff, Hot, HotReason};

/// A function that differs although neither the source of the fix nor a reason leads to it, and
/// why it does. Its name may end before its parameters, or before those of a template.
pub(crate) type Extra = (&'static str, &'static str);

/// Rules that tell how a patch goes live, not what differs.
const NO_CHANGE: [&str; 5] = ["R-STACK", "R-START", "R-HOOK", "R-BUILD", "R-BIND"];

/// What is wrong with the functions that are hot beside those of the fix: those that nothing
/// explains, and those that the case explains although they are not hot or the fix explains them.
/// (Where a constant is taken for another one, a finding may say so, too.)
pub(super) fn wrong(case: &dyn Case, diff: &Diff) -> Vec<String> {
    let ends: Vec<&str> = diff
        .findings
        .iter()
        .filter(|finding| !NO_CHANGE.contains(&finding.rule.as_str()))
        .map(|finding| finding.subject.as_str())
        .chain(case.changed().iter().copied())
        .collect();
    let known = case.extras();
    let mut wrong = Vec::new();
    for hot in &diff.hot {
        let is_of_fix = case.changed().contains(&hot.name.as_str());
        let is_known = known.iter().any(|(name, _)| is_called(hot, name));
        let explained = is_of_fix || is_explained(hot, &ends);
        if !explained && !is_known {
            let reasons: Vec<&str> = hot.reasons.iter().map(|r| r.text.as_str()).collect();
            wrong.push(format!("{} ({})", hot.name, reasons.join("; ")));
        } else if is_known && (is_of_fix || is_explained(hot, case.changed())) {
            wrong.push(format!("{} needs no words of its own", hot.name));
        }
    }
    for (name, _) in known {
        if !diff.hot.iter().any(|hot| is_called(hot, name)) {
            wrong.push(format!("{name} does not differ any more"));
        }
    }
    wrong
}

fn is_called(hot: &Hot, name: &str) -> bool {
    let rest = hot.name.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['(', '<']))
}

/// True if one of its reasons ends in something that changed.
fn is_explained(hot: &Hot, ends: &[&str]) -> bool {
    hot.reasons.iter().any(|reason| {
        let HotReason { kind, text } = reason;
        match kind.as_str() {
            // Its own prototype is part of the source; clones follow the source of others.
            "signature" => true,
            "inlined" | "callee" | "clone" | "reference" => {
                target(text).is_some_and(|name| ends.iter().any(|end| is_of(name, end)))
            }
            // A text that both builds show; a number of bytes shows nothing, and neither does
            // what stands behind an empty text.
            "constant" => {
                text.starts_with("reads \"")
                    && !text.starts_with("reads \"\\0")
                    && text.contains(", was \"")
            }
            _ => false,
        }
    })
}

/// The function or variable that a reason names: behind its verb, up to what is said of it.
fn target(text: &str) -> Option<&str> {
    const VERBS: [&str; 4] = ["inlines ", "calls ", "called ", "refers to "];
    const ENDS: [&str; 4] = [", whose ", ", was ", ", which ", ", a clone "];
    let rest = VERBS.iter().find_map(|verb| text.strip_prefix(verb))?;
    let end = ENDS.iter().filter_map(|end| rest.find(end)).min();
    let name = &rest[..end.unwrap_or(rest.len())];
    // A place in a variable is one of the variable.
    let place = name.rsplit_once("+0x").filter(|(_, offset)| {
        !offset.is_empty() && offset.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    Some(place.map_or(name, |(name, _)| name))
}

/// True for `end` itself and for what belongs to it: a method of a type.
fn is_of(name: &str, end: &str) -> bool {
    name.strip_prefix(end)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::{is_explained, target};
    use crate::invivo::{Hot, HotReason};

    fn hot(kind: &str, text: &str) -> Hot {
        Hot {
            name: "f".to_owned(),
            reasons: vec![HotReason {
                kind: kind.to_owned(),
                text: text.to_owned(),
            }],
        }
    }

    #[test]
    fn only_a_reason_that_ends_in_a_change_explains() {
        let ends = ["ses", "Entry", "check"];
        for (kind, text) in [
            (
                "reference",
                "refers to ses+0x28, which holds something else",
            ),
            ("reference", "refers to ses, was other"),
            (
                "inlined",
                "inlines Entry::operator=, whose source changed (a.c:3)",
            ),
            (
                "inlined",
                "inlines check, whose source changed (a.c:3): f ← g ← check",
            ),
            ("callee", "calls check, whose signature changed"),
            ("constant", "reads \"new\", was \"old\""),
            (
                "signature",
                "its signature changed: int (int) became int (long)",
            ),
        ] {
            assert!(is_explained(&hot(kind, text), &ends), "{text}");
        }
        for (kind, text) in [
            (
                "reference",
                "refers to session+0x28, which holds something else",
            ),
            ("inlined", "inlines checked, whose source changed (a.c:3)"),
            ("constant", "reads 8 bytes 0102, was 8 bytes 0103"),
            ("constant", r#"reads "\0", was "\0old""#),
            ("source", "its own source changed (check)"),
            ("compiler", "the same operations with other registers"),
        ] {
            assert!(!is_explained(&hot(kind, text), &ends), "{text}");
        }
        assert_eq!(target("refers to a+0x, which x"), Some("a+0x"));
        assert_eq!(target("its own source changed"), None);
    }
}
