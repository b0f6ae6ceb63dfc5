//! The processes that a command was told to reach by what they are.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};

use invivo_linux::{Incarnation, Scan, Traits};

use crate::arguments::{Selectors, Targets};
use crate::failure::{Failure, GONE, INTERRUPTED, USAGE};
use crate::output::Output;
use crate::unread;

/// Processes, and how many may not be looked at.
pub(crate) type Found = (Vec<Incarnation>, usize);

/// How many processes are told one by one before a question.
const TOLD: usize = 20;

impl Selectors {
    /// True if processes are chosen by what they are.
    pub(crate) fn is_pattern(&self) -> bool {
        !(self.exe.is_empty()
            && self.comm.is_empty()
            && self.unit.is_empty()
            && self.build_id.is_empty())
    }

    /// True if processes are chosen by anything.
    pub(crate) fn are_given(&self) -> bool {
        !self.pid.is_empty() || self.is_pattern()
    }

    /// Leaves out the processes that are not chosen.
    pub(crate) fn keep(&self, found: Vec<Incarnation>) -> Result<Vec<Incarnation>, Failure> {
        let loaded = self.with_build_id()?;
        let chosen = found.into_iter().filter(|process| {
            let in_image = loaded
                .as_ref()
                .is_none_or(|loaded| loaded.contains(process));
            let named = self.pid.is_empty() || self.pid.contains(&process.pid);
            named && in_image && self.accepts(process.pid)
        });
        Ok(chosen.collect())
    }

    fn accepts(&self, pid: i32) -> bool {
        if self.exe.is_empty() && self.comm.is_empty() && self.unit.is_empty() {
            return true;
        }
        let traits = Traits::of(pid);
        let exe = self.exe.is_empty() || self.exe.iter().any(|path| traits.runs(path));
        let comm = self.comm.is_empty() || self.comm.iter().any(|name| name.matches(&traits.comm));
        let unit = self.unit.is_empty()
            || self
                .unit
                .iter()
                .any(|unit| traits.groups.iter().any(|group| unit.matches(group)));
        exe && comm && unit
    }

    /// Processes with one of the images; none if no image is named.
    fn with_build_id(&self) -> Result<Option<BTreeSet<Incarnation>>, Failure> {
        if self.build_id.is_empty() {
            return Ok(None);
        }
        let ids: Vec<&[u8]> = self.build_id.iter().map(|id| &id.0[..]).collect();
        let found = Scan::default().find(&ids, &BTreeSet::new())?.processes;
        Ok(Some(
            found.into_iter().map(|(process, _)| process).collect(),
        ))
    }
}

impl Targets {
    /// Refuses a command for a patch of processes that chooses none.
    pub(crate) fn required(&self) -> Result<(), Failure> {
        if self.all || self.selectors.are_given() {
            return Ok(());
        }
        let text = "it is not said in which processes";
        Err(Failure::new(USAGE, text).hint(
            "choose them with -p PID, --exe PATH, --comm GLOB, --unit UNIT, --build-id ID or --all; \
             --help tells more",
        ))
    }

    /// True if each process is named by its number.
    pub(crate) fn are_named(&self) -> bool {
        !self.all && !self.selectors.is_pattern()
    }

    /// The processes of `find` that are chosen.
    pub(crate) fn keep(&self, (found, unread): Found) -> Result<Found, Failure> {
        Ok((self.selectors.keep(found)?, unread))
    }

    /// Asks whether the processes of `find` are meant that a pattern chooses. Whoever named all
    /// of them, or each, is asked nothing.
    ///
    /// # Errors
    /// When there are none, when they are not meant, and where nobody can be asked.
    pub(crate) fn confirm(
        &self,
        verb: &str,
        find: &mut dyn FnMut() -> Result<Found, Failure>,
        output: &Output,
    ) -> Result<(), Failure> {
        if !self.selectors.is_pattern() {
            return Ok(());
        }
        let found = find()?;
        let (found, unread) = self.keep(found)?;
        if found.is_empty() {
            let text = format!("no process that it concerns is one of those to {verb}");
            let hint = match unread {
                0 => "see which processes it concerns with: invivo status".to_owned(),
                unread => unread::note(unread),
            };
            return Err(Failure::new(GONE, text).hint(hint));
        }
        if output.yes {
            return Ok(());
        }
        let count = found.len();
        let processes = if count == 1 { "process" } else { "processes" };
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            let text = format!("{count} {processes} would be changed, and nobody can be asked");
            return Err(Failure::new(USAGE, text)
                .hint("look at them with invivo plan or invivo status, then add --yes"));
        }
        for process in found.iter().take(TOLD) {
            let traits = Traits::of(process.pid);
            let exe = traits
                .exe
                .map_or(traits.comm, |exe| exe.display().to_string());
            anstream::eprintln!("{} {exe}", process.pid);
        }
        if let Some(more) = count.checked_sub(TOLD).filter(|more| *more > 0) {
            anstream::eprintln!("… and {more} more");
        }
        anstream::eprint!("{verb} in {count} {processes}? [y/N] ");
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        match (read, answer.trim()) {
            (Ok(_), "y" | "Y" | "yes") => Ok(()),
            _ => Err(Failure::new(INTERRUPTED, "nothing was changed")),
        }
    }
}
