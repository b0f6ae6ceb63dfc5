//! `invivo recover`

use invivo_apply::{Consistency, Outcome, OutcomeState, State};
use invivo_linux::{Access, Process};

use crate::arguments::Recover;
use crate::commands::list::with_patches;
use crate::everywhere::everywhere;
use crate::failure::Failure;
use crate::live::Run;
use crate::output::Output;

pub(crate) fn run(recover: &Recover, output: &Output) -> Result<u8, Failure> {
    let run = Run::new(output);
    let options = run.options(Consistency::Entry, recover.timeout);
    let work = |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        let outcomes = invivo_apply::recover(&mut process, &options)?;
        if outcomes.is_empty() {
            let nothing = Outcome::new(OutcomeState::NothingToDo, "nothing left over");
            return Ok(vec![nothing]);
        }
        Ok(outcomes)
    };
    if !recover.targets.all {
        return run.each(&recover.targets.pid, &[], output, &work);
    }
    let find = || with_patches(|patch| !matches!(patch.state, State::Applied | State::Reverted));
    everywhere(&run, recover.timeout, &[], output, find, work)
}
