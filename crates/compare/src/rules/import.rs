//! R-IMPORT: what new code needs of other images must be at hand in the running one.

use invivo_image::{Import, demangle};

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for import in c.fixed.imports.difference(&c.base.imports) {
        let same = |other: &&Import| other.name == import.name;
        let name = demangle(&import.name);
        let text = match c.base.imports.iter().find(same) {
            None if import.copied => {
                "is a variable of a library that the running image has no copy of, so new code \
                 cannot reach it"
                    .to_owned()
            }
            None => {
                let from = version(import);
                let text = format!(
                    "is not imported by the running image ({from}): it is looked up in the process \
                     when the patch is applied"
                );
                findings.push(Finding::note(Rule::Import, name, text));
                continue;
            }
            Some(old) if old.version != import.version => format!(
                "is imported as {} and was as {}, which may behave otherwise",
                version(import),
                version(old)
            ),
            // The same thing, reached in another way: the planner finds whether it can be.
            Some(_) => continue,
        };
        findings.push(Finding::refuse(Rule::Import, name, text));
    }
}

fn version(import: &Import) -> String {
    let version = import.version.as_ref();
    version.map_or_else(
        || "unversioned".to_owned(),
        |(version, library)| format!("{version} of {library}"),
    )
}
