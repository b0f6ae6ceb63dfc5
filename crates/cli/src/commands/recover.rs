//! `invivo recover`

use invivo_apply::{Applied, Consistency, Outcome, OutcomeState, State};
use invivo_linux::{Access, Process};

use crate::arguments::Recover;
use crate::commands::list::with_patches;
use crate::everywhere::everywhere;
use crate::failure::Failure;
use crate::live::Run;
use crate::output::Output;

pub(crate) fn run(recover: &Recover, output: &Output) -> Result<u8, Failure> {
    let run = Run::new(output);
    let options = run.options(Consistency::Entry, &recover.effort);
    let work = |pid| {
        let mut process = Process::open(pid, Access::Write(&options))?;
        let outcomes = invivo_apply::recover(&mut process, &options)?;
        if outcomes.is_empty() {
            let nothing = Outcome::new(OutcomeState::NothingToDo, "nothing left over");
            return Ok(vec![nothing]);
        }
        Ok(outcomes)
    };
    let targets = &recover.targets;
    if targets.are_named() {
        return run.each(&targets.selectors.pid, &[], output, &work);
    }
    let mut open = || {
        let is_open = |patch: &Applied| !matches!(patch.state, State::Applied | State::Reverted);
        with_patches(is_open).map(|held| (held.processes, held.unread))
    };
    targets.confirm("settle what is open", &mut open, output)?;
    let find = || targets.keep(open()?);
    everywhere(&run, recover.effort.timeout, &[], output, find, work)
}
