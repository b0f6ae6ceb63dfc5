//! R-IMPORT: what new code needs of other images must be at hand in the running one.

use std::collections::BTreeSet;

use invivo_image::x86_64::decode;
use invivo_image::{EntityId, Import, Place, Slot, demangle};

use crate::Comparison;
use crate::rules::{Finding, Rule};

pub(super) fn find(c: &Comparison<'_>, findings: &mut Vec<Finding>) {
    for import in c.fixed.imports.difference(&c.base.imports) {
        let same = |other: &&Import| other.name == import.name;
        let name = demangle(&import.name);
        let text = match c.base.imports.iter().find(same) {
            None if import.copied && is_only_named(c, &import.name) => {
                let text = "is a variable of a library that the running image has no copy of; new code \
                            takes only its address, which is looked up in the process when the patch \
                            is applied";
                findings.push(Finding::note(Rule::Import, name, text));
                continue;
            }
            None if import.copied => {
                "is a variable of a library that the running image has no copy of, so new code \
                 cannot reach it"
                    .to_owned()
            }
            // The loader has filled the slots of the base, and fills none of a patch.
            None if c.fixed.is_windows() => "is imported by the fixed build only".to_owned(),
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

/// True if all that is done with a variable that the loader copies is to take its address, as who
/// throws an exception does with the description of its type.
fn is_only_named(c: &Comparison<'_>, name: &str) -> bool {
    let image = c.fixed;
    let mut copies = image.slots.iter().filter(|(_, slot)| match slot {
        Slot::Copy(of) => **of == *name,
        _ => false,
    });
    let (Some((at, _)), None) = (copies.next(), copies.next()) else {
        return false;
    };
    let Place::In(id, 0) = image.place(*at) else {
        return false;
    };
    let users = c.fixed_usage.uses.get(&id).into_iter().flatten();
    let users: BTreeSet<EntityId> = users.map(|used| used.by).collect();
    let names_it = |by: &EntityId| {
        let lines = decode(image, image.entity(*by)).unwrap_or_default();
        let mut found = false;
        let mut all = lines
            .iter()
            .flat_map(|line| line.references().map(move |r| (line, r)));
        let alone = all.all(|(line, reference)| match image.place(reference.target) {
            Place::In(to, offset) if to == id => {
                found = true;
                offset == 0 && line.takes_address()
            }
            _ => true,
        });
        alone && found
    };
    !users.is_empty() && users.iter().all(names_it) && !c.fixed_usage.pointed.contains_key(&id)
}

fn version(import: &Import) -> String {
    let version = import.version.as_ref();
    version.map_or_else(
        || "unversioned".to_owned(),
        |(version, library)| format!("{version} of {library}"),
    )
}
