//! `invivo revert`

use invivo_apply::{Consistency, Outcome, OutcomeState, State};
use invivo_linux::{Access, Process};

use crate::arguments::Revert;
use crate::commands::list::with_patches;
use crate::everywhere::everywhere;
use crate::failure::Failure;
use crate::live::Run;
use crate::output::Output;

pub(crate) fn run(revert: &Revert, output: &Output) -> Result<u8, Failure> {
    let run = Run::new(output);
    let options = run.options(Consistency::Entry, revert.timeout);
    let _busy = output.busy("reverting");
    let name = revert.name.as_deref();
    let work = |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        let outcomes = invivo_apply::revert(&mut process, name, &options)?;
        if outcomes.is_empty() {
            let name = name.unwrap_or("no live patch");
            return Ok(vec![Outcome::new(OutcomeState::NothingToDo, name)]);
        }
        Ok(outcomes)
    };
    if !revert.targets.all {
        return run.each(&revert.targets.pid, &[], output, &work);
    }
    let find = || {
        with_patches(|patch| {
            patch.state != State::Reverted && name.is_none_or(|name| patch.name == name)
        })
    };
    everywhere(&run, revert.timeout, &[], output, find, work)
}
