//! How a payload stands in the hypervisor below: whether it is among those that are loaded.
//!
//! Xen lists names and the texts of `.modinfo`, and no build ids. Payloads that Invivo writes have
//! a text of their own there; any other one is known by its name alone, which proves nothing.

use invivo_format::livepatch::LISTED_ID;
use invivo_xen::Name;
use owo_colors::OwoColorize;
use schemars::JsonSchema;
use serde::Serialize;

use super::below::{Hypervisor, Payload, Payloads, list, open};
use super::name_of;
use crate::arguments::Targets;
use crate::failure::{Failure, REFUSED, USAGE};
use crate::patch_file::PayloadFile;

/// Which of the loaded payloads a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loaded<'l> {
    /// None of them.
    Nothing,
    /// This one: it has the text that is of the file alone.
    Same(&'l Payload),
    /// This one has its name, and Xen does not tell more.
    Named(&'l Payload),
    /// This one has its name and is another payload.
    Other(&'l Payload),
}

/// Finds the payload with these texts and this name.
fn among<'l>(modinfo: &[String], name: &Name, loaded: &'l [Payload]) -> Loaded<'l> {
    let texts = || modinfo.iter().filter(|text| !text.is_empty());
    let has_texts = |one: &&Payload| one.metadata.iter().eq(texts());
    let is_alone = texts().any(|text| text.starts_with(LISTED_ID));
    if is_alone && let Some(same) = loaded.iter().find(has_texts) {
        return Loaded::Same(same);
    }
    match loaded.iter().find(|one| one.name == name.as_str()) {
        None => Loaded::Nothing,
        Some(named) if !is_alone && has_texts(&named) => Loaded::Named(named),
        Some(other) => Loaded::Other(other),
    }
}

impl PayloadFile {
    /// Which of these it is.
    pub(super) fn among<'l>(&self, name: &Name, loaded: &'l [Payload]) -> Loaded<'l> {
        among(&self.read.payload.modinfo, name, loaded)
    }

    /// The name by which it is loaded, if it is proved to be; refuses it where its name is taken.
    pub(super) fn proved<'l>(
        &self,
        name: &Name,
        loaded: &'l [Payload],
    ) -> Result<Option<&'l Payload>, Failure> {
        let taken = match self.among(name, loaded) {
            Loaded::Nothing => return Ok(None),
            Loaded::Same(same) => return Ok(Some(same)),
            Loaded::Named(one) => Failure::new(
                REFUSED,
                format!(
                    "a payload with the name {name} is loaded ({}), and Xen does not tell whether \
                     it is this one",
                    one.state
                ),
            ),
            Loaded::Other(one) => Failure::new(
                REFUSED,
                format!(
                    "another payload with the name {name} is loaded ({})",
                    one.state
                ),
            ),
        };
        Err(taken.hint(format!(
            "give this one another name with --name NAME; the one that is loaded is driven by its \
             name: invivo xen apply {name}, invivo revert {name} --xen"
        )))
    }

    /// Refuses processes as a place for it.
    pub(crate) fn goes_to_xen(&self, targets: &Targets) -> Result<(), Failure> {
        if targets.all || targets.selectors.are_given() {
            return Err(self.in_no_process());
        }
        Ok(())
    }

    /// That it was to go to processes.
    pub(crate) fn in_no_process(&self) -> Failure {
        let text = format!(
            "{}: is a payload for Xen: it goes to the hypervisor below, and to no process",
            self.path.display()
        );
        Failure::new(USAGE, text)
            .hint("leave -p out, and what else chooses processes (--exe, --unit, --all, …)")
    }
}

/// How one payload stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Standing {
    file: String,
    /// By which name it is loaded, or would be.
    payload: String,
    /// `applied`, `checked` (loaded, not live), `pending` while an action goes on, `unpatched`
    /// where it is not loaded, or `refused` where it is for another hypervisor.
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Standing {
    pub(super) fn of(file: &PayloadFile, name: &Name, below: &Payloads) -> Standing {
        let found = file.among(name, &below.payloads);
        let own = file.read.payload.xen_depends.as_ref();
        let own = own.map(ToString::to_string);
        let runs = below.hypervisor.build_id.as_ref();
        let foreign = own.filter(|own| runs.is_some_and(|runs| runs != own));
        let state = |one: &Payload| match one.result.as_str() {
            "pending" => "pending".to_owned(),
            _ => one.state.clone(),
        };
        let (state, reason) = match (&found, foreign) {
            (Loaded::Same(one), _) => (state(one), one.failed()),
            (_, Some(own)) => {
                let reason = format!("it is for the hypervisor with the build id {own}");
                ("refused".to_owned(), Some(reason))
            }
            (Loaded::Named(one), None) => {
                let reason = "by its name: Xen does not tell build ids".to_owned();
                (state(one), Some(reason))
            }
            (Loaded::Other(_), None) => {
                let reason = "another payload is loaded by this name".to_owned();
                ("unpatched".to_owned(), Some(reason))
            }
            (Loaded::Nothing, None) => ("unpatched".to_owned(), None),
        };
        let name = match &found {
            Loaded::Same(one) => one.name.clone(),
            _ => name.to_string(),
        };
        Standing {
            file: file.path.display().to_string(),
            payload: name,
            state,
            reason,
        }
    }

    /// Prints it for a person.
    pub(crate) fn print(&self) {
        let why = self.reason.as_ref();
        let why = why.map_or(String::new(), |why| format!(": {why}"));
        let (name, file) = (self.payload.bold(), &self.file);
        anstream::println!("  {name} ({file}): {}{why}", self.state);
    }
}

/// The hypervisor below, and how one payload stands in it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Below {
    pub(crate) hypervisor: Hypervisor,
    pub(crate) payload: Standing,
}

/// The hypervisor below, and how payloads stand in it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Standings {
    hypervisor: Hypervisor,
    payloads: Vec<Standing>,
}

impl Standings {
    /// Asks the hypervisor below.
    pub(crate) fn of(files: &[PayloadFile]) -> Result<Standings, Failure> {
        let names = files.iter().map(|file| name_of(&file.path, None));
        let names: Vec<Name> = names.collect::<Result<_, _>>()?;
        let below = list(&mut open()?)?;
        let payloads = files.iter().zip(&names);
        let payloads = payloads.map(|(file, name)| Standing::of(file, name, &below));
        Ok(Standings {
            payloads: payloads.collect(),
            hypervisor: below.hypervisor,
        })
    }

    /// Prints them for a person.
    pub(crate) fn print(&self) {
        self.hypervisor.print();
        self.payloads.iter().for_each(Standing::print);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(name: &str, metadata: &[&str]) -> Payload {
        Payload {
            name: name.to_owned(),
            state: "applied".to_owned(),
            result: "done".to_owned(),
            metadata: metadata.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn a_payload_is_known_by_what_is_of_it_alone() {
        let all = [
            loaded("by-hand", &[]),
            loaded("fix", &["fixes=1", "invivo.id=aa"]),
            loaded("renamed", &["invivo.id=bb"]),
        ];
        let find = |texts: &[&str], name: &str| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            among(&texts, &Name::new(name).expect("a name"), &all)
        };
        assert_eq!(
            find(&["fixes=1", "", "invivo.id=aa"], "fix"),
            Loaded::Same(&all[1])
        );
        assert_eq!(find(&["invivo.id=bb"], "fix"), Loaded::Same(&all[2]));
        assert_eq!(find(&["invivo.id=cc"], "fix"), Loaded::Other(&all[1]));
        assert_eq!(find(&["invivo.id=cc"], "new"), Loaded::Nothing);
        // A name, and texts that anybody could have written, prove nothing.
        assert_eq!(find(&[], "by-hand"), Loaded::Named(&all[0]));
        assert_eq!(find(&[], "fix"), Loaded::Other(&all[1]));
        assert_eq!(find(&["fixes=1"], "by-hand"), Loaded::Other(&all[0]));
    }
}
