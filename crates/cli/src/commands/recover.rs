//! `invivo recover`

use invivo_apply::{Consistency, Outcome, OutcomeState};
use invivo_linux::{Access, Process};

use crate::arguments::Recover;
use crate::failure::Failure;
use crate::live::Run;
use crate::output::Output;

pub(crate) fn run(recover: &Recover, output: &Output) -> Result<u8, Failure> {
    let run = Run::new(output);
    let options = run.options(Consistency::Entry, recover.timeout);
    run.each(&recover.processes.pid, &[], output, |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        let outcomes = invivo_apply::recover(&mut process, &options)?;
        if outcomes.is_empty() {
            return Ok(vec![Outcome::new(
                OutcomeState::NothingToDo,
                "nothing left over",
            )]);
        }
        Ok(outcomes)
    })
}
