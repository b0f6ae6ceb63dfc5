//! `invivo revert`

use invivo_apply::{Consistency, Outcome, OutcomeState};
use invivo_linux::{Access, Process};

use crate::arguments::Revert;
use crate::failure::Failure;
use crate::live::Run;
use crate::output::Output;

pub(crate) fn run(revert: &Revert, output: &Output) -> Result<u8, Failure> {
    let run = Run::new();
    let options = run.options(Consistency::Entry, revert.timeout);
    let _busy = output.busy("reverting");
    run.each(&revert.processes.pid, &[], output, |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        let name = revert.name.as_deref();
        let outcomes = invivo_apply::revert(&mut process, name, &options)?;
        if outcomes.is_empty() {
            return Ok(vec![nothing(name)]);
        }
        Ok(outcomes)
    })
}

fn nothing(name: Option<&str>) -> Outcome {
    Outcome {
        state: OutcomeState::NothingToDo,
        patch: name.unwrap_or("no live patch").to_owned(),
        consistency: Consistency::Entry,
        hooks: 0,
        switch: None,
        visited: std::time::Duration::ZERO,
        stopped: std::time::Duration::ZERO,
        replaced: None,
    }
}
