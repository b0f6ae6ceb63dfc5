//! `invivo revert`

use invivo_apply::{Consistency, Outcome, OutcomeState};
use invivo_linux::{Access, Process};

use crate::arguments::Revert;
use crate::failure::Failure;
use crate::live::Run;
use crate::output::Output;

pub(crate) fn run(revert: &Revert, output: &Output) -> Result<u8, Failure> {
    let run = Run::new(output);
    let options = run.options(Consistency::Entry, revert.timeout);
    let _busy = output.busy("reverting");
    run.each(&revert.processes.pid, &[], output, |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        let name = revert.name.as_deref();
        let outcomes = invivo_apply::revert(&mut process, name, &options)?;
        if outcomes.is_empty() {
            let name = name.unwrap_or("no live patch");
            return Ok(vec![Outcome::new(OutcomeState::NothingToDo, name)]);
        }
        Ok(outcomes)
    })
}
